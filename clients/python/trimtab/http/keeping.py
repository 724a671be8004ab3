"""Which answers are kept for a fallback, and which requests they stand for.

Source: RFC 9111, sections 3.5 (answers to authorized requests), 4.1 (Vary), 5.2.1.5 and 5.2.2.5 (no-store), 5.2.2.7 (private)
and 7.3 (cookies), read as strictly as a cache that several users share must: an answer that was one user's must never be
another's.
"""

from __future__ import annotations

from collections.abc import Mapping

# What tells users apart.
_USERS = ("authorization", "cookie")
# What an answer depends on beside method and URL.
_DEPENDS_ON = (*_USERS, "accept", "accept-language", "range")
# One client's library asks for the same encodings every time.
_KNOWN = frozenset({*_DEPENDS_ON, "accept-encoding"})


def identity(method: str, url: str, headers: Mapping[str, str]) -> tuple[str | None, ...]:
    """What makes two requests ask for the same."""
    return method, url, *map(headers.get, _DEPENDS_ON)


def worth_keeping(method: str, asked: Mapping[str, str], status: int, headers: Mapping[str, str]) -> bool:
    """Whether a good answer may be given again to who asks for the same: by what was ``asked`` and the answer's ``headers``."""
    told = headers.get("cache-control", "").lower()
    # 304 is the answer to a condition: who did not make it has nothing that is not modified.
    if method not in ("GET", "HEAD") or status == 304 or "set-cookie" in headers:
        return False
    if "no-store" in told or "no-store" in asked.get("cache-control", "").lower():
        return False
    if "private" in told and not any(name in asked for name in _USERS):
        return False
    return all(name.strip().lower() in _KNOWN for name in headers.get("vary", "").split(",") if name.strip())
