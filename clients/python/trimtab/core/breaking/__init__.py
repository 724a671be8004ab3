"""Keeping calls away from where they fail."""
