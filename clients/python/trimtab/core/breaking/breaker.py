"""A circuit breaker: calls that would most likely fail are refused at once, and now and then a few try whether it is over.

Source: resilience4j's ``CircuitBreakerStateMachine``: the states, the judgement on every completion once there are enough
calls, and the probes of the half-open state, whose own results alone decide. Differences, on purpose:

- A probe is a lease with a deadline. One whose result never comes gives its place to another, so nothing hangs on it. One
  that comes after all counts: else a callee that takes longer than the deadline would be probed for ever.
- A result counts only in the state in which its call was admitted.
- A circuit that opens again and again without having been closed stays open longer each time, with jitter, up to a limit.
- A call that went well is judged only where it can open a circuit: it completes the minimum, or time moved the window on.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from trimtab.core.backoff import Rng
from trimtab.core.breaking.window import NOTHING, Counts, CountWindow, TimeWindow, Window
from trimtab.policy.sections import Breaker

_SECONDS = 10.0
_JITTER = 0.2
_LATE = 1000  # probes whose result may still come when their places were given to others


class State(Enum):
    """What a circuit does with calls. The last two are an operator's."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    FORCED_OPEN = "forced-open"
    DISABLED = "disabled"


class CircuitBreaker:
    """One circuit. Not thread-safe; times in seconds of one clock, handed in.

    ``state`` is what the last ``admit``, ``done`` or ``force`` made of it: an open circuit is half-open as soon as a call
    asks for it. ``passing`` is the permit of every call while it is closed, and 0 otherwise. ``transitions`` counts every
    change of it.
    """

    __slots__ = (
        "_condition", "_finished", "_late", "_minimum", "_number", "_open_until", "_openings", "_probes", "_rng", "_row",
        "_settings", "_slow_after", "_window", "passing", "state", "transitions",
    )  # fmt: skip

    def __init__(self, settings: Breaker, rng: Rng) -> None:
        condition = settings.open_when
        self._settings = settings
        self._condition = condition
        self._rng = rng
        # A window of ten calls never holds twenty.
        self._minimum = min(condition.minimum, condition.calls or condition.minimum)
        self._window: Window = (
            CountWindow(condition.calls, self._minimum)
            if condition.calls is not None
            else TimeWindow(condition.seconds or _SECONDS, self._minimum)
        )
        slow_after = condition.slow_after if condition.slow is not None else None
        self._slow_after = slow_after if slow_after is not None else inf
        self._number = 1  # of the newest permit
        self.passing = 1  # the permit of every call while closed, 0 in any other state
        self._row = 0  # failures in a row
        self._openings = 0  # without having been closed
        self._open_until = 0.0
        self._probes: dict[int, float] = {}  # permits under way, and when they are given up
        self._late: dict[int, None] = {}  # permits that were given up, the latest last
        self._finished = NOTHING  # probes
        self.state = State.CLOSED
        self.transitions = 0
        self.force(settings.force)

    def admit(self, now: float) -> int | None:
        """A permit for a call, to be handed to ``done`` or ``release`` once; None: the call is refused."""
        return self.passing or self._admit(now)

    def done(self, permit: int, now: float, failed: bool, seconds: float) -> bool:
        """A call ended after ``seconds``; ``failed`` as its policy sees it. Returns whether that changed the state."""
        window = self._window
        if failed or permit != self.passing or now >= window.edge or seconds > self._slow_after:
            return self._done(permit, now, failed, seconds > self._slow_after)
        self._row = 0
        window.calls += 1
        return False

    def release(self, permit: int) -> None:
        """A call that says nothing of its callee: it was never sent, was cancelled, or failed by its caller's own fault."""
        self._forget(permit)

    def retry_after(self, now: float) -> float:
        """Seconds until a refused call is worth another try; infinite while an operator holds the circuit open."""
        match self.state:
            case State.OPEN:
                return max(0.0, self._open_until - now)
            case State.HALF_OPEN if self._free <= 0:
                # With no probe under way all have ended, and the state would be another. Those that were late may have
                # ended beside those in their places, and left none for anybody else for longer.
                return max(0.0, sorted(self._probes.values())[-self._free] - now)
            case State.FORCED_OPEN:
                return inf
            case _:
                return 0.0

    def counts(self, now: float) -> Counts:
        """What is judged now: the window, or half-open the probes that ended."""
        return self._finished if self.state is State.HALF_OPEN else self._window.counts(now)

    def force(self, will: str | None) -> bool:
        """An operator's will: "open", "closed" (never judge), or None to judge again, from a clean window.

        Returns whether that changed the state. Raises ValueError for another word.
        """
        if will not in ("open", "closed", None):
            raise ValueError(f"a circuit can be forced open or closed, not {will!r}")
        forced = {"open": State.FORCED_OPEN, "closed": State.DISABLED}
        if will is not None:
            return self._enter(forced[will])
        return self.state in forced.values() and self._close()

    # Inside

    def _admit(self, now: float) -> int | None:
        match self.state:
            case State.DISABLED:
                return self._number  # what becomes of it will not count
            case State.OPEN if now >= self._open_until:
                self._finished = NOTHING
                self._enter(State.HALF_OPEN)
            case State.HALF_OPEN:
                pass
            case _:
                return None
        if self._free <= 0:
            for permit in [permit for permit, until in self._probes.items() if until <= now]:
                del self._probes[permit]
                self._late[permit] = None
                if len(self._late) > _LATE:
                    del self._late[next(iter(self._late))]
            if self._free <= 0:
                return None
        self._number += 1
        self._probes[self._number] = now + self._settings.probe_deadline
        return self._number

    @property
    def _free(self) -> int:
        """Places for probes that are not taken; below 0 where late ones ended beside those in their places."""
        return self._settings.probes - len(self._probes) - self._finished.calls

    def _done(self, permit: int, now: float, failed: bool, slow: bool) -> bool:
        """Any result, whatever the state."""
        if permit == self.passing:
            self._window.add(now, failed, slow)
            self._row = self._row + 1 if failed else 0
            return self._open(now) if self._row == self._condition.consecutive else self._judge(now)
        if not self._forget(permit):
            return False
        calls, failures, slows = self._finished
        self._finished = Counts(calls + 1, failures + failed, slows + slow)
        if self._finished.calls < self._settings.probes:
            return False
        return self._open(now) if self._probes_failed() else self._close()

    def _forget(self, permit: int) -> bool:
        """Returns whether it was that of a probe which had not ended."""
        if permit in self._late:
            del self._late[permit]
            return True
        return self._probes.pop(permit, None) is not None

    def _judge(self, now: float) -> bool:
        counts = self._window.counts(now)
        return counts.calls >= self._minimum and self._too_many(counts) and self._open(now)

    def _probes_failed(self) -> bool:
        """Where failures are only judged in a row, there is no share of them to allow: every probe has to succeed."""
        in_a_row = self._condition.failures is None and self._condition.consecutive is not None
        return (in_a_row and self._finished.failed > 0) or self._too_many(self._finished)

    def _too_many(self, counts: Counts) -> bool:
        failures, slow = self._condition.failures, self._condition.slow
        return (failures is not None and counts.failed >= failures * counts.calls and counts.failed > 0) or (
            slow is not None and counts.slow >= slow * counts.calls and counts.slow > 0
        )

    def _open(self, now: float) -> bool:
        settings = self._settings
        seconds = settings.open_for
        if self._openings:
            longer = min(seconds * 2.0 ** min(self._openings, 32), max(settings.open_limit, seconds))
            seconds = longer * (1 - _JITTER + 2 * _JITTER * self._rng.random())
        self._openings += 1
        self._open_until = now + seconds
        return self._enter(State.OPEN)

    def _close(self) -> bool:
        self._openings = self._row = 0
        self._window.clear()
        return self._enter(State.CLOSED)

    def _enter(self, state: State) -> bool:
        """Returns whether it was another. What was admitted before has no say any more."""
        if state is self.state:
            return False
        self.state = state
        self.transitions += 1
        self._probes.clear()
        self._late.clear()
        self._number += 1
        self.passing = self._number if state is State.CLOSED else 0
        return True
