"""How much one client may ask: a token bucket on the messages of its stream.

Source: the generic cell rate algorithm (ITU-T I.371); one number of state, no timer.
"""

from __future__ import annotations

_ROUNDING = 1e-9


class FloodLimit:
    """Admits ``rate`` messages per second on average and ``burst`` at once. Time in seconds of one clock."""

    __slots__ = ("_interval", "_theoretical", "_tolerance")

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1.0 / rate
        self._tolerance = self._interval * (burst - 1) + _ROUNDING
        self._theoretical = 0.0

    def admit(self, now: float) -> bool:
        """Whether a message at ``now`` conforms; one that does not costs nothing."""
        theoretical = self._theoretical
        if theoretical < now:
            theoretical = now
        elif theoretical - now > self._tolerance:
            return False
        self._theoretical = theoretical + self._interval
        return True
