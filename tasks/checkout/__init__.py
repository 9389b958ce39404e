"""One checkout: clone, update, download, switch, local work, state."""
