"""A machine on which an optional package is not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from trimtab.core.balancing import hashing


@contextmanager
def without_xxhash() -> Iterator[None]:
    """Importing xxhash fails, also for those that had it already."""
    hashing._xxh64.cache_clear()
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "xxhash", None)
        yield
