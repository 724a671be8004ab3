"""Calls of any kind through their pipelines: the two drivers, blocking and awaited, and what is made of them."""
