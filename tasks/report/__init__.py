"""What people and programs see: progress, outcomes, errors, GitHub Actions, JSON. Nothing else prints."""

from .report import Report

__all__ = ["Report"]
