"""The circuits of a pipeline: one for each endpoint, each method, or the service as a whole."""

from __future__ import annotations

from collections.abc import Callable, Container
from math import isinf
from typing import TYPE_CHECKING

from trimtab.core.backoff import Rng
from trimtab.core.breaking.breaker import CircuitBreaker, State
from trimtab.core.endpoints import Endpoint
from trimtab.core.retrying.conditions import Outcome
from trimtab.errors import CircuitOpen
from trimtab.policy.sections import Breaker

if TYPE_CHECKING:
    from trimtab.core.calling.call import Call

# Methods are named by callers: somebody who puts an id into each must not fill the memory.
_LIMIT = 10_000


class Circuits:
    """Circuit breakers by what has one of its own.

    ``changed`` is called after every transition, with the scope, the name of what the circuit is for, and both states.
    """

    def __init__(self, settings: Breaker, rng: Rng, changed: Callable[[str, str, State, State], None]) -> None:
        self.per_endpoint = settings.scope == "endpoint"
        self.scope = settings.scope
        self.breakers: dict[str, CircuitBreaker] = {}
        self.since: dict[str, float] = {}  # when those that ever changed their state did so last
        self._states: dict[str, State] = {}  # and to which one
        self._per_method = settings.scope == "method"
        self._settings = settings
        self._rng = rng
        self._changed = changed

    def admit(self, call: Call, endpoint: Endpoint | None, now: float) -> bool:
        """Whether the attempt may be made. If so, it must be answered by ``learn``."""
        name = endpoint.id if self.per_endpoint and endpoint is not None else self._name(call)
        try:
            breaker = self.breakers[name]
        except KeyError:
            breaker = self._new(name, now)
        if passing := breaker.passing:
            call.permit = passing
            call.circuit = breaker
            return True
        state = breaker.state
        permit = breaker.admit(now)
        if breaker.state is not state:
            self._changed_state(name, now)
        if permit is None:
            return False
        call.permit, call.circuit = permit, breaker
        return True

    def learn(self, call: Call, outcome: Outcome, seconds: float, now: float) -> None:
        """The attempt came to ``outcome``."""
        breaker = call.circuit
        if breaker is None:
            return
        call.circuit = None
        if not outcome.counted:
            breaker.release(call.permit)
        elif breaker.done(call.permit, now, outcome.failed, seconds):
            self.transition(call, now)

    def transition(self, call: Call, now: float) -> None:
        """The circuit that let a call through changed its state by what became of the call."""
        self._changed_state(self._name(call), now)

    def retain(self, endpoints: Container[str]) -> None:
        """Endpoints that went away take their circuits along. Calls that need none share one, which stays."""
        if self.per_endpoint:
            gone = [id_ for id_ in self.breakers if id_ and id_ not in endpoints]
            for id_ in gone:
                del self.breakers[id_]
                self.since.pop(id_, None)
                self._states.pop(id_, None)

    def refusal(self, call: Call, now: float) -> CircuitOpen:
        """The error of a call that no circuit lets through."""
        if self.per_endpoint and not call.local:
            asked = [breaker for name, breaker in self.breakers.items() if name]
            what = "the circuits of all endpoints are"
        else:
            asked = [self.breakers[self._name(call)]]
            what = f"the circuit of {call.method} is" if self._per_method else "its circuit is"
        forced = any(breaker.state is State.FORCED_OPEN for breaker in asked)
        retry_after = min((breaker.retry_after(now) for breaker in asked), default=0.0)
        when = "an operator forced it" if forced else f"try again in {retry_after:.3g} s"
        hint = "see `trimtab get breakers`" if isinf(retry_after) else ""
        return CircuitOpen(
            f"{call.service}: {what} open; {when}", retry_after=retry_after, service=call.service, hint=hint
        )

    def _name(self, call: Call) -> str:
        if self.per_endpoint:
            return call.endpoint.id if call.endpoint is not None else ""
        return call.method if self._per_method else ""

    def _changed_state(self, name: str, now: float) -> None:
        breaker = self.breakers.get(name)
        before = self._states.get(name, State.CLOSED)
        if breaker is None or breaker.state is before:
            # Its endpoint went away meanwhile, and perhaps came back: what it has now is another circuit.
            return
        self.since[name], self._states[name] = now, breaker.state
        self._changed(self.scope, name, before, breaker.state)

    def _new(self, name: str, now: float) -> CircuitBreaker:
        if len(self.breakers) >= _LIMIT:
            oldest = next(iter(self.breakers))
            del self.breakers[oldest]
            self.since.pop(oldest, None)
            self._states.pop(oldest, None)
        breaker = self.breakers[name] = CircuitBreaker(self._settings, self._rng)
        if breaker.state is not State.CLOSED:
            self._changed_state(name, now)
        return breaker
