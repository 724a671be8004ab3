"""Choosing an endpoint: one small picker for each algorithm, and ``build``, which puts them together for a policy."""
