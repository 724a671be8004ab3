"""New endpoints get their share of traffic little by little: caches fill, connections open, code gets compiled."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.policy.sections import SlowStart

# In so many steps an endpoint warms up, none shorter than this (seconds): each makes a new picker.
_STEPS = 20
_SHORTEST = 0.1


def factor(settings: SlowStart, seconds: float) -> float:
    """Return the part of its weight that an endpoint of this age has.

    Source: Envoy's slow start, ``max(10 %, (max(t, 1)/window)^(1/aggression))``.
    """
    if seconds >= settings.window:
        return 1.0
    grown: float = min(1.0, max(seconds, 1.0) / settings.window) ** (1.0 / settings.aggression)
    return max(settings.at_least, grown)


def warming(settings: SlowStart, since: Mapping[str, float], now: float) -> dict[str, float]:
    """Return the part of its weight by id of each endpoint that is not warm yet. ``since``: when it was first healthy."""
    start = now - settings.window
    return {id_: factor(settings, now - at) for id_, at in since.items() if at > start}


def next_step(settings: SlowStart, now: float) -> float:
    """Return when the weights are to be looked at again."""
    return now + max(_SHORTEST, settings.window / _STEPS)
