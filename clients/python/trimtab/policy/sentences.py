"""When a circuit opens, as a sentence and as a structure.

::

    failures >= 50% of 20 in 10s                 half of at least 20 calls in the last 10 s failed
    failures >= 50% of 20 in last 100            the same over the last 100 calls
    slow(1s) >= 80% of 20 in 10s                 calls that took longer than 1 s
    5 in a row                                   consecutive failures
    failures >= 50% of 20 in 10s or 5 in a row   either
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from trimtab.policy.forms import Contradiction, Count, Misfit, form, shown
from trimtab.policy.quantities import Duration, Share, duration_text

_RATIO = re.compile(
    r"(?P<what>failures|slow\s*\(\s*(?P<after>[0-9a-z.]+)\s*\))\s*>=\s*(?P<share>[0-9.]+\s*%)"
    r"(\s+of\s+(?P<minimum>[0-9]{1,9}))?\s+in\s+(last\s+(?P<calls>[0-9]{1,9})|(?P<seconds>[0-9.]+(ms|s|m|h)))"
)
_ROW = re.compile(r"(?P<count>[0-9]{1,9})\s+(failures\s+)?in\s+a\s+row")
_HINT = 'as "failures >= 50% of 20 in 10s", "slow(1s) >= 80% of 20 in last 100" or "5 in a row"; several with "or"'
_LONGEST = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWhen:
    """When a circuit opens: any of the conditions that are given. The window is ``calls`` calls, or ``seconds``."""

    failures: float | None = form(Share(0.01), None, "Share of failures, once there are enough calls.")
    slow: float | None = form(Share(0.01), None, "Share of slow calls, once there are enough calls.")
    slow_after: float | None = form(Duration(), None, "A call that took longer is slow, however it ended.")
    consecutive: int | None = form(Count(1, 1000), None, "Failures in a row; needs no minimum.")
    minimum: int = form(Count(1, 100_000), 20, "Calls in the window before a share is judged.")
    calls: int | None = form(Count(1, 100_000), None, "The window is the last so many calls.")
    seconds: float | None = form(Duration(0.1, 3600), None, "The window is this time. Default: 10s.")

    def contradictions(self) -> Iterator[Contradiction]:
        """No condition, half a condition, two windows, or one that never holds enough calls."""
        if self.failures is None and self.slow is None and self.consecutive is None:
            yield Contradiction("", "says no condition", "say failures, slow or consecutive")
        if self.slow is not None and self.slow_after is None:
            yield Contradiction("slow", "nothing says what is slow", "say slow_after: 1s")
        if self.slow is None and self.slow_after is not None:
            yield Contradiction("slow_after", "nothing says how many may be slow", "say slow: 80%")
        if self.calls is not None and self.seconds is not None:
            yield Contradiction("seconds", "the window is a number of calls already", "calls or seconds")
        if self.calls is not None and self.calls < self.minimum:
            message = f"a window of {self.calls} calls never holds the minimum of {self.minimum}"
            yield Contradiction("calls", message, "say a lower minimum")

    def __str__(self) -> str:
        window = f"of {self.minimum} in " + (
            f"last {self.calls}" if self.calls else duration_text(self.seconds or 10.0)
        )
        told = []
        if self.failures is not None:
            told.append(f"failures >= {Share().write(self.failures)} {window}")
        if self.slow is not None and self.slow_after is not None:
            told.append(f"slow({duration_text(self.slow_after)}) >= {Share().write(self.slow)} {window}")
        if self.consecutive is not None:
            told.append(f"{self.consecutive} in a row")
        return " or ".join(told)


def read_open_when(text: str) -> OpenWhen:
    """The structure that a sentence stands for. Raises Misfit, saying which part of it is not understood."""
    if len(text) > _LONGEST:
        raise Misfit(f"a sentence of {len(text)} characters", f"at most {_LONGEST}")
    found: dict[str, float | int | None] = {}
    window: tuple[object, ...] | None = None
    for part in re.split(r"\s+or\s+", text.strip()):
        if match := _ROW.fullmatch(part):
            _set(found, "consecutive", Count(1, 1000).read(int(match["count"])), part)
        elif match := _RATIO.fullmatch(part):
            seconds = Duration(0.1, 3600).read(match["seconds"]) if match["seconds"] else None
            calls = Count(1, 100_000).read(int(match["calls"])) if match["calls"] else None
            minimum = Count(1, 100_000).read(int(match["minimum"])) if match["minimum"] else min(20, calls or 20)
            if window not in (None, (seconds, calls, minimum)):
                raise Misfit(f"{shown(part)} has another window than the part before", "one circuit has one window")
            window = seconds, calls, minimum
            found.update(seconds=seconds, calls=calls, minimum=minimum)
            share = Share(0.01).read(match["share"])
            if match["after"]:
                _set(found, "slow", share, part)
                found["slow_after"] = Duration().read(match["after"])
            else:
                _set(found, "failures", share, part)
        else:
            raise Misfit(f"{shown(part)} is not understood", _HINT)
    return OpenWhen(**{name: value for name, value in found.items() if value is not None})  # type: ignore[arg-type]


def _set(found: dict[str, float | int | None], name: str, value: float | int, part: str) -> None:
    if name in found:
        raise Misfit(f"{shown(part)}: {name} is said twice", "say it once")
    found[name] = value
