"""Whom to call: one interface over all balancing algorithms."""

from __future__ import annotations

from typing import Protocol

from trimtab.core.endpoints import Endpoint


class Picker(Protocol):
    """Chooses an endpoint for each call. It is made anew for each state of its service; ``pick`` never waits."""

    def pick(self, now: float, key: int | None = None) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none.

        ``now`` is in seconds. ``key`` is the call's 64-bit hash (``hash_key``): algorithms that keep calls of one key
        together go by it, and anywhere without one.
        """
        ...
