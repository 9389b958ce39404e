"""Small upstream repositories and a git host on loopback that serves them.

`python -m tests.upstream COMMAND` runs a command against both.
"""
