"""What became of the calls to one service, in numbers that cost next to nothing to keep and are read now and then."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from trimtab.core.retrying.conditions import Outcome

# Latencies are counted by powers of two, from 122 µs to 32 s.
BOUNDS = tuple(2.0**exponent for exponent in range(-13, 6))
_TOGETHER = 256  # latencies that are counted at a time


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
        "_latencies", "_recent", "_seconds", "cancelled", "ejections", "extra", "failures", "fallbacks", "refusals",
        "transitions",
    )  # fmt: skip

    def __init__(self) -> None:
        self.extra = self.failures = self.cancelled = self.fallbacks = self.ejections = 0
        self.refusals: dict[str, int] = {}
        self.transitions: dict[str, int] = {}
        # Not counted yet: to find the place of each when it comes costs many times as much where memory is cold.
        self._recent: list[float] = []
        self._latencies = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def record(self, seconds: float) -> None:
        """A call was answered, or failed, ``seconds`` after it began. ``extra`` attempts are counted by who makes them."""
        recent = self._recent
        recent.append(seconds)
        if len(recent) >= _TOGETHER:
            self._count()

    def _count(self) -> None:
        recent, latencies, counted = self._recent, self._latencies, 0
        recent.sort()
        for slot, bound in enumerate(BOUNDS):
            up_to = bisect_right(recent, bound, counted)
            latencies[slot] += up_to - counted
            counted = up_to
        latencies[-1] += len(recent) - counted
        self._seconds += sum(recent)
        recent.clear()

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
        self._count()
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
