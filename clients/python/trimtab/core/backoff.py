"""How long to wait before trying again."""

from __future__ import annotations

from typing import Protocol


class Rng(Protocol):
    """A source of chance: ``random.Random`` is one."""

    def random(self) -> float:
        """Return a float in [0, 1)."""
        ...


def full_jitter(attempt: int, base: float, cap: float, rng: Rng) -> float:
    """Return seconds to wait before attempt ``attempt`` (0 is the first repetition): uniform in [0, min(cap, base·2^n)).

    Full jitter spreads a herd better than a fixed delay with a little noise on it.
    """
    return min(cap, base * 2.0 ** min(attempt, 32)) * rng.random()
