"""Which calls are copied to another service, and how many of the copies may be under way."""

from __future__ import annotations

from trimtab.core.backoff import Rng
from trimtab.core.calling.parts import Lock
from trimtab.policy.sections import Mirror

# A mirrored service that hangs must not hold more of this process than so many copies.
LIMIT = 32


class Mirroring:
    """The mirror section of a policy. ``lock``: its service's.

    A copy that ``admits`` lets begin says ``ended`` when it is over.
    """

    def __init__(self, settings: Mirror, rng: Rng, lock: Lock) -> None:
        self.service = settings.service
        self.under_way = 0
        self._share = settings.share
        self._rng = rng
        self._lock = lock

    def admits(self) -> bool:
        """Whether a call is to be copied. None is while there are too many under way: what is full drops."""
        with self._lock:
            if self.under_way >= LIMIT or self._rng.random() >= self._share:
                return False
            self.under_way += 1
            return True

    def ended(self) -> None:
        """A copy is over."""
        with self._lock:
            self.under_way -= 1
