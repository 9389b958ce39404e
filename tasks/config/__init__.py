"""The configuration tree `sources`: settings, defaults, URLs."""
