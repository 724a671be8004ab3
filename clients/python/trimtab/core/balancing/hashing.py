"""64-bit hashes that are the same in every process: XXH64, of the optional package xxhash."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from trimtab.errors import MissingExtra


@cache
def _xxh64() -> Callable[[bytes, int], int]:
    # Not at the top: the package is optional, and most policies never need a hash.
    try:
        from xxhash import xxh64_intdigest
    except ImportError as error:
        raise MissingExtra(
            "ring_hash, maglev, subset and sticky splits need xxhash, which is not installed: pip install 'trimtab[hash]'"
        ) from error
    return xxh64_intdigest


def hash_key(text: str, seed: int = 0) -> int:
    """Return the XXH64 of a text, 0 to 2^64 - 1. Raises MissingExtra when xxhash is not installed."""
    return _xxh64()(text.encode("utf-8", "surrogatepass"), seed)
