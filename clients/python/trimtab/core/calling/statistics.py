"""What became of the calls to one service, in numbers that cost next to nothing to keep and are read now and then."""

from __future__ import annotations

from math import frexp
from typing import NamedTuple

# Latencies are counted by powers of two: a slot for each exponent that frexp gives from 61 µs to 32 s.
LOWEST, HIGHEST = -13, 5
BOUNDS = tuple(2.0**exponent for exponent in range(LOWEST, HIGHEST + 1))
_SLOTS = 64  # exponents below 0 count from the end of the list, as Python's indexes do
_LEAST = 1e-9


class Counters(NamedTuple):
    """A reading. ``latencies``: calls up to each of ``BOUNDS`` and, last, those above; ``seconds``: all of them together."""

    calls: int
    failures: int
    attempts: int
    fallbacks: int
    refused: dict[str, int]
    latencies: tuple[int, ...]
    seconds: float


class Statistics:
    """Counters of one service, all growing only. Kept by the service's lock."""

    __slots__ = ("_latencies", "extra", "failures", "fallbacks", "refusals", "seconds")

    def __init__(self) -> None:
        self.extra = self.failures = self.fallbacks = 0
        self.seconds = 0.0
        self.refusals: dict[str, int] = {}
        self._latencies = [0] * _SLOTS

    def record(self, seconds: float) -> None:
        """A call ended ``seconds`` after it began. ``failures`` and ``extra`` attempts are counted by who knows of them."""
        self.seconds += seconds
        self._latencies[frexp(seconds + _LEAST)[1]] += 1

    def refused(self, section: str) -> None:
        """A call was kept from being sent by a section of its policy."""
        self.refusals[section] = self.refusals.get(section, 0) + 1

    def read(self) -> Counters:
        """Return everything counted so far."""
        slots = self._latencies
        below = sum(slots[exponent] for exponent in range(-_SLOTS // 2, LOWEST + 1))
        told = [below, *(slots[exponent] for exponent in range(LOWEST + 1, HIGHEST + 1))]
        calls = sum(slots)
        return Counters(
            calls,
            self.failures,
            calls + self.extra,
            self.fallbacks,
            dict(self.refusals),
            (*told, calls - sum(told)),
            self.seconds,
        )
