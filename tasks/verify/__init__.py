"""Checks of checkouts, packages and trace data."""
