"""One connection pool per endpoint, so that a stuck endpoint cannot use up the connections of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from trimtab.calling.in_use import SWEEP, InUse
from trimtab.core.endpoints import Endpoint, Tally
from trimtab.fork import tell_of_forks
from trimtab.http.target import endpoint_scheme

T = TypeVar("T")


class Slot(InUse, Generic[T]):
    """The pool of one endpoint, and where it leads as the wire has it."""

    __slots__ = ("host", "pool", "port", "scheme")

    def __init__(self, endpoint: Endpoint, scheme: str, make: Callable[[str], T]) -> None:
        super().__init__()
        address = endpoint.address
        self.pool = make(f"{scheme}://{endpoint.target}")
        self.scheme = scheme.encode("ascii")
        self.host = address.encode("ascii" if address.isascii() else "idna")
        self.port = endpoint.port


class Pools(Generic[T]):
    """Makes a pool for an endpoint at its first use and gives up those that are idle. Thread-safe, fork-safe.

    ``make`` is given the origin; ``scheme``: what to speak to all endpoints, whatever they say of themselves. ``given_up`` are
    pools that nobody used for a minute, for the caller to close: they are looked for every 10 s while there are calls.
    """

    def __init__(self, make: Callable[[str], T], scheme: str | None = None) -> None:
        self.make = make
        self.given_up: list[T] = []
        self._scheme = scheme
        # Making a pool may run what the garbage collector ends, and a signal's handler may call: on this very thread.
        self._lock = threading.RLock()
        self._slots: dict[Hashable, Slot[T]] = {}
        self._sweep_at = 0.0
        tell_of_forks(self)

    def of(self, endpoint: Endpoint, tally: Tally, now: float) -> Slot[T]:
        """The pool of ``endpoint``, for a call that ``tally`` counts as in flight until it is over."""
        key = (endpoint.address, endpoint.port, endpoint.metadata.get("scheme"))
        with self._lock:
            if now >= self._sweep_at:
                self._sweep(now)
            slot = self._slots.get(key)
            if slot is None:
                scheme = endpoint_scheme(endpoint.metadata, self._scheme)
                slot = self._slots[key] = Slot(endpoint, scheme, self.make)
            slot.used_at = now
            if slot.tally is not tally:
                slot.share(tally)
            return slot

    def drain(self) -> list[T]:
        """All pools, taken out, for the caller to close."""
        with self._lock:
            slots, self._slots = self._slots, {}
            return [slot.pool for slot in slots.values()]

    def _sweep(self, now: float) -> None:
        self._sweep_at = now + SWEEP
        idle = [key for key, slot in self._slots.items() if slot.idle(now)]
        self.given_up += [self._slots.pop(key).pool for key in idle]

    # Forks

    def before_fork(self) -> bool:
        """Connections without threads need no rest."""
        return False

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Speak on none of the parent's connections, and drop them without a word on the wire."""
        self._lock, self._slots, self.given_up = threading.RLock(), {}, []
