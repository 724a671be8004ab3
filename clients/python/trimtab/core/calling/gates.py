"""What may keep a call from being sent: each algorithm of ``core.limiting`` in its place in the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trimtab.core.backoff import Rng
from trimtab.core.faults import Faults
from trimtab.core.limiting.adaptive import build_bulkhead
from trimtab.core.limiting.bulkhead import Bulkhead
from trimtab.core.limiting.keyed import Keyed
from trimtab.core.limiting.limiter import Limiter, build_limiter
from trimtab.core.limiting.throttle import Throttle as AdaptiveThrottle
from trimtab.core.retrying.conditions import Outcome
from trimtab.errors import Overloaded, RateLimited
from trimtab.policy.sections import Concurrency, HashKey, Limit, Throttle

if TYPE_CHECKING:
    from trimtab.core.calling.call import Call

# A callee that says or shows that it has too much to do.
OVERLOAD = frozenset({"429", "503", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "timeout", "DEADLINE_EXCEEDED"})


class FaultDelay:
    """Injected delays."""

    section = "fault"
    waits = True
    holds = False

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def enter(self, call: Call, now: float) -> float:
        """Returns the delay, for the share of calls that get one."""
        return self._faults.delay()

    def leave(self, call: Call, now: float) -> None:
        """Nothing is held."""


class RateGate:
    """A rate limit of the whole service. ``before``: the gate that it takes the place of."""

    section = "limit"
    holds = False

    def __init__(self, settings: Limit, before: RateGate | None = None) -> None:
        self.settings = settings
        self.limiter: Limiter = build_limiter(settings) if before is None else before.limiter
        self.waits = settings.wait > 0

    def enter(self, call: Call, now: float) -> float:
        """Returns the wait for the call's turn. Raises RateLimited."""
        wait = self.limiter.admit(now)
        if wait < 0.0:
            raise _rate_limited(call, -wait)
        if wait > 0.0 and not self.waits:
            # The limiter waits since a moment ago, by rules that are not this call's.
            self.limiter.refund(now + wait, now)
            raise _rate_limited(call, wait)
        call.turn = now + wait
        return wait

    def leave(self, call: Call, now: float) -> None:
        """A call that was not sent after all gives its place back."""
        if not call.sent and not call.tried:
            self.limiter.refund(call.turn, now)


class KeyedRateGate:
    """A rate limit of its own for each method, or for each key that calls have. Those without one share one.

    ``before`` as in RateGate.
    """

    section = "limit"
    holds = False

    def __init__(self, settings: Limit, before: KeyedRateGate | None = None) -> None:
        self.settings = settings
        self.limiter: Keyed = Keyed(settings) if before is None else before.limiter
        self._key: Callable[[Call], str] = (
            (lambda call: call.method) if settings.per == "method" else _reader(settings.key)
        )
        self.waits = settings.wait > 0

    def enter(self, call: Call, now: float) -> float:
        """Returns the wait for the call's turn. Raises RateLimited."""
        key = self._key(call)
        wait = self.limiter.admit(key, now)
        if wait < 0.0:
            raise _rate_limited(call, -wait)
        if wait > 0.0 and not self.waits:
            self.limiter.refund(key, now + wait, now)
            raise _rate_limited(call, wait)
        call.turn = now + wait
        return wait

    def leave(self, call: Call, now: float) -> None:
        """A call that was not sent after all gives its place back."""
        if not call.sent and not call.tried:
            self.limiter.refund(self._key(call), call.turn, now)


class ThrottleGate:
    """Refuses a share of what the callee would refuse anyway."""

    section = "throttle"
    waits = False
    holds = False

    def __init__(self, settings: Throttle, rng: Rng) -> None:
        self._throttle = AdaptiveThrottle(settings)
        self._rng = rng

    def enter(self, call: Call, now: float) -> float:
        """Raises Overloaded."""
        if self._throttle.admit(now, self._rng):
            return 0.0
        share = self._throttle.probability(now)
        raise Overloaded(
            f"{call.service}: throttled, it refuses too many calls; {share:.0%} of calls are kept back",
            service=call.service,
            retry_after=1.0,
        )

    def leave(self, call: Call, now: float) -> None:
        """Nothing is held."""

    def learn(self, call: Call, outcome: Outcome, seconds: float, now: float) -> None:
        """What the callee did with an attempt."""
        if outcome.condition in OVERLOAD:
            self._throttle.rejected(now)
        elif outcome.counted and outcome.sent:
            self._throttle.accepted(now)


class ConcurrencyGate:
    """A bulkhead, fixed or adaptive."""

    section = "concurrency"
    waits = False
    holds = True

    def __init__(self, settings: Concurrency, rng: Rng) -> None:
        self.bulkhead = _bulkhead(settings, rng, None)

    def change(self, settings: Concurrency, rng: Rng) -> None:
        """Go on under other settings: calls that are under way count, and an adaptive limit begins where it stands."""
        in_flight = self.bulkhead.in_flight
        self.bulkhead = _bulkhead(settings, rng, self.bulkhead)
        self.bulkhead.in_flight = in_flight

    def enter(self, call: Call, now: float) -> float:
        """Raises Overloaded."""
        bulkhead = self.bulkhead
        if bulkhead.acquire():
            return 0.0
        raise Overloaded(
            f"{call.service}: {bulkhead.in_flight} calls are under way, the limit is {bulkhead.limit}",
            service=call.service,
        )

    def leave(self, call: Call, now: float) -> None:
        """Give the place back, and tell an adaptive limit how the call went."""
        outcome = call.outcome
        if outcome is None:
            self.bulkhead.release(now, call.seconds if call.sent else None)
        else:
            # How soon a connection was refused is no time of the callee: it would pass for the shortest there is.
            told = outcome.counted and outcome.sent
            self.bulkhead.release(now, call.seconds if told else None, outcome.condition in OVERLOAD)


def _bulkhead(settings: Concurrency, rng: Rng, before: Bulkhead | None) -> Bulkhead:
    bulkhead = build_bulkhead(settings.limit, settings.adaptive, rng, before)
    assert bulkhead is not None, "a concurrency section has a limit"
    return bulkhead


def _reader(key: HashKey | None) -> Callable[[Call], str]:
    header, argument = (key.header, key.argument) if key is not None else (None, None)

    def read(call: Call) -> str:
        found = None
        if header is not None and call.headers is not None:
            found = call.headers.get(header)
        if found is None and argument is not None and call.arguments is not None:
            found = call.arguments.get(argument)
        return "" if found is None else str(found)

    return read


def _rate_limited(call: Call, retry_after: float) -> RateLimited:
    return RateLimited(
        f"{call.service}: more calls than the rate limit allows; try again in {retry_after:.3g} s",
        service=call.service,
        retry_after=retry_after,
    )
