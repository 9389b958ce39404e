"""Checks of checkouts, packages, CUDA and trace data, offline and without changing anything."""
