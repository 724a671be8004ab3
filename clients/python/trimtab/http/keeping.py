"""Which answers are kept for a fallback, and which requests they stand for.

Source: RFC 9111, sections 3.5 (answers to authorized requests), 4.1 (Vary) and 5.2.2.5 (no-store), read as strictly as
a cache that several users share must: an answer that was one user's must never be another's.
"""

from __future__ import annotations

from collections.abc import Mapping

# What an answer depends on beside method and URL.
_DEPENDS_ON = ("authorization", "cookie", "accept", "accept-language", "range")
# One client's library asks for the same encodings every time.
_KNOWN = frozenset({*_DEPENDS_ON, "accept-encoding"})


def identity(method: str, url: str, headers: Mapping[str, str]) -> tuple[str | None, ...]:
    """What makes two requests ask for the same."""
    return method, url, *map(headers.get, _DEPENDS_ON)


def worth_keeping(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a good answer may be given again to who asks for the same. ``headers`` of the answer."""
    if method not in ("GET", "HEAD") or "no-store" in headers.get("cache-control", "").lower():
        return False
    return all(name.strip().lower() in _KNOWN for name in headers.get("vary", "").split(",") if name.strip())
