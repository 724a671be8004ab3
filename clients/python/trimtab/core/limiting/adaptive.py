"""A bulkhead whose limit finds itself from how calls go.

Source: Netflix concurrency-limits, ``WindowedLimit``. Samples are judged by the window: ten at least, over the shortest time
that it allows, by their mean and by the most calls that were under way. Single times scatter too much: judged one by one,
exponential times, as a queue has them, hold Gradient2 at its lowest limit however fast the callee is. A window counts as
dropped when a tenth of it was; by Netflix's rule, a single drop, one error in a hundred would bring a busy caller's limit down.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Protocol

from trimtab.core.backoff import Rng
from trimtab.core.limiting.aimd import Aimd
from trimtab.core.limiting.bulkhead import Bulkhead
from trimtab.core.limiting.gradient2 import Gradient2
from trimtab.core.limiting.vegas import Vegas
from trimtab.policy.sections import Adaptive

SAMPLES = 10
WINDOW = 0.1
DROPPED = 0.1
SHORTEST = 100e-6  # as in WindowedLimit: below this, differences are the machine's noise, not the callee's load


class Algorithm(Protocol):
    """How a limit moves. ``limit``: where it stands."""

    limit: int

    def update(self, rtt: float, in_flight: int, dropped: bool) -> int:
        """Return the limit after calls that took ``rtt`` seconds, with ``in_flight`` calls under way.

        ``dropped``: the callee refused one, or did not answer in time; ``rtt`` is then of no account.
        """
        ...


class AdaptiveBulkhead(Bulkhead):
    """A bulkhead whose limit an ``algorithm`` moves."""

    __slots__ = ("_algorithm", "_busiest", "_dropped", "_due", "_samples", "_seconds")

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__(algorithm.limit)
        self._algorithm = algorithm
        self._due = -inf
        self._samples = self._dropped = self._busiest = 0
        self._seconds = 0.0

    def release(self, now: float, seconds: float | None = None, dropped: bool = False) -> None:
        """Give a call's place back. ``seconds``: how long it took; None: it says nothing about the callee, as when it was
        cancelled or never sent. ``dropped``: the callee refused it, or did not answer in time.

        Raises ValueError when no place is taken.
        """
        in_flight = self.in_flight
        if not in_flight:
            raise ValueError("a place was released that nobody had taken")
        self.in_flight = in_flight - 1
        if seconds is None:
            return
        if in_flight > self._busiest:
            self._busiest = in_flight
        if dropped:
            self._dropped += 1
        else:
            self._seconds += seconds
        self._samples += 1
        if self._samples >= SAMPLES and now >= self._due:
            self._judge(now)

    def _judge(self, now: float) -> None:
        good = self._samples - self._dropped
        mean = self._seconds / good if good else 0.0
        dropped = self._dropped >= DROPPED * self._samples
        self.limit = self._algorithm.update(max(mean, SHORTEST), self._busiest, dropped)
        self._due = now + WINDOW
        self._samples = self._dropped = self._busiest = 0
        self._seconds = 0.0


def build_bulkhead(
    limit: int | None, adaptive: Adaptive | None, rng: Rng, before: Bulkhead | None = None
) -> Bulkhead | None:
    """Return the bulkhead for a fixed ``limit`` or for ``adaptive`` settings, None where neither is given.

    ``before``: the one that it takes the place of. What that one found, an adaptive limit goes on from, within its new bounds.
    """
    if adaptive is not None:
        if isinstance(before, AdaptiveBulkhead):
            adaptive = replace(adaptive, initial=before.limit)
        return AdaptiveBulkhead(_algorithm(adaptive, rng))
    return Bulkhead(limit) if limit is not None else None


def _algorithm(settings: Adaptive, rng: Rng) -> Algorithm:
    if settings.algorithm == "vegas":
        return Vegas(settings, rng)
    return Aimd(settings) if settings.algorithm == "aimd" else Gradient2(settings)
