"""Whether anybody uses the connections to an endpoint."""

from __future__ import annotations

from trimtab.core.endpoints import Tally

# Connections to an endpoint that was not called for so long are given back; seconds.
IDLE = 60.0
# They are looked for so often, by calls; seconds.
SWEEP = 10.0


_NOBODYS = Tally()


class InUse:
    """The connections to one address, in use as long as any call to the endpoint is in flight, over them or not.

    That the endpoint's tally knows anyway: a count of its own would be one thing more to do at the end of every call. Services
    that share an address have a tally each. Not thread-safe: who makes, uses and gives up connections has a lock for it.

    ``used_at`` and ``tally`` are those of the newest call, and said by whoever sends it; another tally than the one before is
    to be told to ``share``.
    """

    __slots__ = ("_others", "tally", "used_at")

    def __init__(self) -> None:
        self.used_at = 0.0
        self.tally = _NOBODYS
        self._others: list[Tally] = []

    def share(self, tally: Tally) -> None:
        """A call is sent there that another tally counts than the one before."""
        self._others = [other for other in (*self._others, self.tally) if other.in_flight and other is not tally]
        self.tally = tally

    @property
    def in_use(self) -> bool:
        """A call is in flight."""
        return any(tally.in_flight for tally in (self.tally, *self._others))

    def idle(self, now: float) -> bool:
        """Nobody uses them, and nobody did for a while."""
        return now - self.used_at > IDLE and not self.in_use
