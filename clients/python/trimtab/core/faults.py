"""Fault injection: some calls wait, some attempts fail, by chance, to see what all the rest does about it."""

from __future__ import annotations

from trimtab.core.backoff import Rng
from trimtab.core.retrying.conditions import Outcome, outcome_of
from trimtab.policy.sections import Fault


class Faults:
    """What to do to a call, and to each of its attempts."""

    __slots__ = ("_abort", "_abort_share", "_delay", "_delay_share", "_rng")

    def __init__(self, settings: Fault, rng: Rng) -> None:
        self._rng = rng
        self._delay = settings.delay.time if settings.delay is not None else 0.0
        self._delay_share = settings.delay.share if settings.delay is not None else 0.0
        self._abort = outcome_of(settings.abort.status) if settings.abort is not None else None
        self._abort_share = settings.abort.share if settings.abort is not None else 0.0

    def delay(self) -> float:
        """Seconds that a call has to wait before it is sent; 0: none."""
        return self._delay if self._rng.random() < self._delay_share else 0.0

    def abort(self) -> Outcome | None:
        """What an attempt comes to instead of being sent; None: send it."""
        return self._abort if self._rng.random() < self._abort_share else None
