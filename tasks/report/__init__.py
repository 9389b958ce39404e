"""What people and programs see: progress, tables, errors, GitHub Actions, JSON. Nothing else prints."""

from .report import Report

__all__ = ["Report"]
