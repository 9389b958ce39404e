"""The benchmark: this project and what a user could use instead, measured on the same line. See `__main__`."""
