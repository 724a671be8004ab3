"""Trying again: what may be, when, and how often."""
