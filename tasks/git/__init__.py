"""Running git: commands, messages, transfers, revisions, submodules, packs."""
