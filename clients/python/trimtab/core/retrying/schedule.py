"""When to try again.

Source: gRFC A6: the nth retry waits ``min(initial * multiplier^(n-1), longest)`` times a random 0.8 to 1.2, so that those
who failed together do not come back together; a callee may push back with a time of its own, or with "not at all".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimtab.core.backoff import Rng
from trimtab.policy.sections import Retry

PUSHBACK_KEY = "grpc-retry-pushback-ms"
NOT_AT_ALL = -1.0

_JITTER = 0.2
_MILLISECONDS = re.compile(r"0|[1-9][0-9]{0,9}")


class Schedule:
    """The waits between attempts under these settings. Holds no state of a call: one serves all of them."""

    __slots__ = ("_waits",)

    def __init__(self, settings: Retry) -> None:
        first, longest = settings.backoff
        self._waits = tuple(min(first * settings.multiplier**n, longest) for n in range(max(settings.attempts - 1, 1)))

    def delay(self, made: int, pushback: float | None, rng: Rng) -> float | None:
        """Seconds to wait after ``made`` attempts (1 or more), the last of which failed; None: do not try again.

        ``pushback`` is what that failure's callee asked for (``Outcome.pushback``): its time is kept exactly. The backoff
        begins anew after it, so the attempts up to it do not count as ``made`` for later ones.
        """
        if pushback is not None:
            return pushback if pushback >= 0 else None
        waits = self._waits
        wait = waits[made - 1] if made <= len(waits) else waits[-1]
        return wait * (1 - _JITTER + 2 * _JITTER * rng.random())


def read_pushback(values: Sequence[str]) -> float | None:
    """``Outcome.pushback`` for the values of ``grpc-retry-pushback-ms`` in a failure's metadata; None where there are none.

    What cannot be read, two values, and what is negative all mean "not at all".
    """
    if not values:
        return None
    if len(values) > 1 or not _MILLISECONDS.fullmatch(values[0]) or int(values[0]) >= 2**31:
        return NOT_AT_ALL
    return int(values[0]) / 1000
