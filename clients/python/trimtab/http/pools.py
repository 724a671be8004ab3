"""One connection pool per endpoint, so that a stuck endpoint cannot use up the connections of the others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# An endpoint that was not called for this long gives its idle connections back; seconds.
IDLE = 60.0
_SWEEP = 10.0


@dataclass(slots=True)
class _Slot(Generic[T]):
    pool: T
    in_use: int = 0
    used_at: float = 0.0


class Pools(Generic[T]):
    """Makes a pool for an endpoint at its first use and gives up those that are idle. Thread-safe, fork-safe."""

    def __init__(self, make: Callable[[str], T], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.make = make
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot[T]] = {}
        self._swept_at = clock()
        self._pid = os.getpid()

    def acquire(self, origin: str) -> T:
        """The pool of ``origin``; balance it by one ``release``."""
        if self._pid != os.getpid():
            # A forked child must not speak on its parent's connections; it drops them without a word on the wire.
            self._pid, self._lock, self._slots = os.getpid(), threading.Lock(), {}
        with self._lock:
            slot = self._slots.get(origin)
            if slot is None:
                slot = self._slots[origin] = _Slot(self.make(origin))
            slot.in_use += 1
            slot.used_at = self._clock()
            return slot.pool

    def release(self, origin: str) -> None:
        """The call that acquired ``origin`` is over."""
        with self._lock:
            slot = self._slots.get(origin)
            if slot is not None and slot.in_use > 0:
                slot.in_use -= 1

    def idle(self) -> list[T]:
        """Pools that nobody used for a minute, taken out, for the caller to close; looks every 10 s at most."""
        now = self._clock()
        if now - self._swept_at < _SWEEP:
            return []
        with self._lock:
            self._swept_at = now
            gone = [o for o, slot in self._slots.items() if slot.in_use == 0 and now - slot.used_at > IDLE]
            return [self._slots.pop(origin).pool for origin in gone]

    def drain(self) -> list[T]:
        """All pools, taken out, for the caller to close."""
        with self._lock:
            slots, self._slots = self._slots, {}
            return [slot.pool for slot in slots.values()]
