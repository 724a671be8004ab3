"""What became of the calls to one service, in numbers that cost next to nothing to keep and are read now and then."""

from __future__ import annotations

from math import frexp, inf, ldexp
from typing import NamedTuple

from trimtab.core.retrying.conditions import Outcome

# Latencies are counted by powers of two, from 122 µs to 32 s.
_LEAST = -13
BOUNDS = tuple(2.0**exponent for exponent in range(_LEAST, 6))
_SLOTS = len(BOUNDS)


class Counters(NamedTuple):
    """A reading. ``calls`` were sent, or about to be, and are over: ``failures`` and ``cancelled`` are some of them.

    ``latencies``: calls, without the cancelled, up to each of ``BOUNDS`` and, last, those above; ``seconds``: all of these
    together. ``transitions`` of circuits, by the state that they came to; ``ejections`` of endpoints.
    """

    calls: int
    failures: int
    cancelled: int
    attempts: int
    fallbacks: int
    refused: dict[str, int]
    latencies: tuple[int, ...]
    seconds: float
    transitions: dict[str, int]
    ejections: int


class Statistics:
    """Counters of one service, all growing only. Kept by the service's lock."""

    __slots__ = (
        "_above", "_here", "_latencies", "_seconds", "_slot", "_up_to", "cancelled", "ejections", "extra", "failures",
        "fallbacks", "refusals", "transitions",
    )  # fmt: skip

    def __init__(self) -> None:
        self.extra = self.failures = self.cancelled = self.fallbacks = self.ejections = 0
        self.refusals: dict[str, int] = {}
        self.transitions: dict[str, int] = {}
        self._seconds = 0.0
        self._latencies = [0] * (len(BOUNDS) + 1)
        # The slot of the newest call, which has most often the next one, too, and calls that it does not know of yet.
        self._slot = self._here = 0
        self._above, self._up_to = -1.0, BOUNDS[0]

    def record(self, seconds: float) -> None:
        """A call was answered, or failed, ``seconds`` after it began. ``extra`` attempts are counted by who makes them."""
        self._seconds += seconds
        if self._above < seconds <= self._up_to:
            self._here += 1
        else:
            self._record_elsewhere(seconds)

    def _record_elsewhere(self, seconds: float) -> None:
        self._latencies[self._slot] += self._here
        # The slot is the exponent: comparing with one bound after another would fetch them all.
        mantissa, exponent = frexp(seconds)
        if mantissa == 0.5:
            exponent -= 1
        slot = exponent - _LEAST if seconds > BOUNDS[0] else 0
        if slot < _SLOTS:
            self._up_to = ldexp(1.0, slot + _LEAST)
            self._above = self._up_to / 2 if slot else -1.0
        else:
            slot, self._above, self._up_to = _SLOTS, BOUNDS[-1], inf
        self._slot, self._here = slot, 1

    def ended(self, outcome: Outcome, seconds: float) -> None:
        """A call ended, one way or another. How long a cancelled one would have taken nobody knows."""
        if outcome.counted:
            self.failures += outcome.failed
            self.record(seconds)
        else:
            self.cancelled += 1

    def refused(self, section: str) -> None:
        """A call was kept from being sent by a section of its policy."""
        self.refusals[section] = self.refusals.get(section, 0) + 1

    def changed(self, state: str) -> None:
        """A circuit came to ``state``."""
        self.transitions[state] = self.transitions.get(state, 0) + 1

    def read(self) -> Counters:
        """Return everything counted so far."""
        self._latencies[self._slot] += self._here
        self._here = 0
        calls = sum(self._latencies) + self.cancelled
        return Counters(
            calls,
            self.failures,
            self.cancelled,
            calls + self.extra,
            self.fallbacks,
            dict(self.refusals),
            tuple(self._latencies),
            self._seconds,
            dict(self.transitions),
            self.ejections,
        )
