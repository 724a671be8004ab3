"""What holds for some of the calls to a service, composed when a policy arrives.

A behaviour that is off is absent: nothing tests for it in a call. Not thread-safe by itself: ``lock``, one for each service,
is held around each half of a call, which is what makes the counts of everything below exact under any number of threads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from trimtab.core.balancing.hashing import hash_key
from trimtab.core.calling.balancer import Balancer
from trimtab.core.calling.call import Call
from trimtab.core.calling.circuits import Circuits
from trimtab.core.calling.fallbacks import Fallbacks
from trimtab.core.calling.parts import Gate, Learner, Retrying, Surroundings
from trimtab.core.endpoints import Endpoint, Tally
from trimtab.core.faults import Faults
from trimtab.core.retrying.conditions import CANCELLED, OK, Outcome
from trimtab.errors import DeadlineExceeded
from trimtab.policy.sections import Balance, HashKey, Timeout

if TYPE_CHECKING:
    from trimtab.core.calling.hedged import Hedged
    from trimtab.core.calling.mirroring import Mirroring
    from trimtab.core.calling.observed import Dispatch, Listener

# A connection that was never made proves that nothing was sent, so another endpoint may be tried whatever the policy says
# of retries. Three is enough to step over a dying machine without hiding that a whole service is away.
MAX_UNSENT = 3


class Pipeline:
    """Everything between a caller and its callee, for calls that the same parts of the policy hold for."""

    __slots__ = (
        "_acquire", "_budget", "_decay", "_error_penalty", "_gates", "_hash", "_holding", "_lasting_timeout", "_learners",
        "_listener", "_lock", "_nobody", "_outlier", "_release", "_retrying", "_rng", "_tallies", "_total_timeout",
        "attempt_timeout", "balancer", "circuits", "clock", "crew", "documented", "fallbacks", "faults", "hedged", "keyed",
        "mirroring", "now", "observed", "plain", "priority", "retired", "revision", "service", "statistics",
    )  # fmt: skip

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        revision: int,
        balancer: Balancer,
        timeout: Timeout,
        priority: str = "",
        retrying: Retrying,
        gates: tuple[Gate, ...] = (),
        learners: tuple[Learner, ...] = (),
        circuits: Circuits | None = None,
        faults: Faults | None = None,
        fallbacks: Fallbacks | None = None,
        mirroring: Mirroring | None = None,
        hedged: Hedged | None = None,
        listener: Listener | None = None,
        keyed: bool = False,
        documented: frozenset[str] = frozenset(),
    ) -> None:
        self.service = surroundings.service
        self.statistics = surroundings.statistics
        self.clock = surroundings.clock
        self.now = surroundings.clock.now  # ready for the many that only ask
        self.crew = surroundings.crew
        self.revision = revision
        self.balancer = balancer
        self.priority = priority
        self.attempt_timeout = timeout.attempt
        self.circuits = circuits
        self.faults = faults
        self.fallbacks = fallbacks
        self.mirroring = mirroring
        self.hedged = hedged  # copies of calls may race
        self.keyed = keyed  # something in it asks for headers or arguments
        self.documented = documented  # the sections that somebody asked for: all others are built in
        self._holding = any(gate.holds for gate in gates)
        self.observed = listener is not None  # it is an ObservedPipeline
        self._listener: Listener = listener  # type: ignore[assignment]  # nobody else asks
        # Nothing may make a call wait or fail without an endpoint, no answer is kept, nobody listens or asks for arguments,
        # and there is one of it.
        self.plain = (
            not keyed
            and faults is None
            and fallbacks is None
            and mirroring is None
            and hedged is None
            and listener is None
            and not any(gate.waits for gate in gates)
        )
        self.retired = False  # other rules hold now, or nobody follows the service
        self._total_timeout = timeout.total
        self._lasting_timeout = timeout.total if "timeout" in documented else None
        self._lock = surroundings.lock
        # Taken twice in every call: a with statement costs twice as much.
        self._acquire, self._release = surroundings.lock.acquire, surroundings.lock.release
        self._rng = surroundings.rng
        self._tallies = surroundings.tallies
        self._nobody = surroundings.nobody
        self._gates = gates
        self._learners = learners
        self._retrying = retrying
        self._budget = retrying.budget
        self._outlier = balancer.outlier
        balance: Balance = balancer.balance
        # One key decides both: who is to stay with a version stays with its endpoint, too.
        self._hash = (balancer.split.sticky if balancer.split is not None else None) or balance.hash
        self._error_penalty = balance.error_penalty
        self._decay = balance.decay

    # The moments of a call: begun, perhaps failed and tried again, answered, over

    def begin(
        self,
        now: float,
        method: str = "",
        deadline: float | None = None,
        idempotent: bool = True,
        local: bool = False,
        exclude: Collection[str] = (),
        headers: Mapping[str, str] | None = None,
        arguments: Mapping[str, Any] | None = None,
        lasting: bool = False,
    ) -> Call:
        """Let a call in and choose its endpoint. It must be sent when ``call.wait`` seconds have passed.

        ``deadline``: the caller's own, by the same clock. ``local``: the call needs no endpoint. ``exclude``: ids of
        endpoints that must not get it. ``lasting``: it may go on for ever, so that only a timeout that somebody asked for
        holds for it, none that is built in. Raises RateLimited, CircuitOpen,
        Overloaded, DeadlineExceeded, NoEndpoints, each with the call as ``error.trimtab``.
        """
        total = self._lasting_timeout if lasting else self._total_timeout
        if total is not None and (deadline is None or now + total < deadline):
            deadline = now + total
        call = Call()
        call.pipeline = self
        call.method = method
        call.deadline = deadline
        call.idempotent = idempotent
        call.began = call.sent_at = now
        attempt = self.attempt_timeout
        call.until = (
            deadline if attempt is None or (deadline is not None and deadline - now < attempt) else now + attempt
        )
        call.seconds = 0.0
        call.endpoint = call.tally = call.circuit = key = None
        call.tried = ()
        call.admitted = 0
        self._acquire()
        try:
            if self.keyed:
                key = self._read_key(call, headers, arguments)
            if self._gates:
                for gate in self._gates:
                    if wait := gate.enter(call, now):
                        call.wait += wait
                    call.admitted += 1
                if deadline is not None and now + call.wait >= deadline:
                    raise _too_late(call)
            elif deadline is not None and now >= deadline:
                raise _too_late(call)
            if local or exclude or self.faults is not None:
                self._choose(call, now, local, exclude)
                return call
            # As _choose does, without what is rarely asked for.
            balancer = self.balancer
            if now >= balancer.due:
                balancer.refresh(now)
            endpoint = balancer.picker.pick(now, key)
            if endpoint is None:
                raise self._nobody()
            circuits = self.circuits
            if circuits is not None and not circuits.admit(call, endpoint, now):
                endpoint = self._elsewhere(call, circuits, now, {endpoint.id})
            call.endpoint = endpoint
            try:
                tally = self._tallies[endpoint.id]
            except KeyError:
                # A picker that is being made without the lock may be the first one.
                tally = self._tallies.setdefault(endpoint.id, Tally())
            tally.in_flight += 1
            call.tally = tally
        except Exception as error:
            self._refuse(call, error, now)
            raise
        finally:
            self._release()
        return call

    def go_on(self, call: Call, now: float) -> None:
        """A call that had to wait has its turn, and is sent now."""
        call.wait = 0.0
        call.start(now)

    def answered(self, call: Call, now: float, over: bool = False) -> None:
        """The callee answered as it should, and the answer is the call's.

        Its body may still be on its way, unless the call is ``over`` with that.
        """
        self._acquire()
        try:
            # As _learn does, without what only failures ask for.
            seconds = call.seconds = now - call.sent_at
            tally = call.tally
            if tally is not None:
                tally.observe(now, seconds, self._decay)
                outlier = self._outlier
                if outlier is not None and outlier.attentive:
                    self.balancer.judge(call.endpoint, True, now)  # type: ignore[arg-type]  # a tally has one
            budget = self._budget
            if budget is not None:
                if call.tried and call.borrowed:
                    self._give_back(call)
                if budget.attentive:
                    budget.succeeded(now)
            circuit = call.circuit
            if circuit is not None:
                call.circuit = None
                if circuit.done(call.permit, now, False, seconds):
                    self.circuits.transition(call, now)  # type: ignore[union-attr]  # it is one of them
            if self._learners:
                for learner in self._learners:
                    learner.learn(call, OK, seconds, now)
            self.statistics.record(now - call.began)
            if over:
                if tally is not None:
                    tally.in_flight -= 1
                    call.tally = None
                if self._holding:
                    self._end(call, now)
        finally:
            self._release()

    def failed(self, call: Call, outcome: Outcome, error: str, now: float, last: bool = False) -> float | None:
        """The attempt failed. Returns the seconds to wait before ``again``; None: this was the last one, as ``last`` may say.

        The call is then ``over`` as soon as nobody reads what it failed with.
        """
        with self._lock:
            call.outcome = outcome
            call.error = error
            self._learn(call, outcome, now)
            delay = None if last else self._next(call, outcome, now)
            if delay is None:
                self.statistics.ended(outcome, now - call.began)
                return None
            call.waiting = True
            if call.tally is not None:
                call.tally.in_flight -= 1
                call.tally = None
            return delay

    def again(self, call: Call, now: float) -> None:
        """Choose an endpoint for one more attempt, one that was not tried yet while there is one.

        Raises NoEndpoints, CircuitOpen.
        """
        with self._lock:
            call.tried = call.attempts
            self.statistics.extra += 1
            last = call.outcome
            call.endpoint = call.outcome = None
            call.error = ""
            call.waiting = False
            call.start(now)
            try:
                self._choose(call, now)
            except Exception:
                # Nobody is left to try: the call ends with the failure that it had.
                self.statistics.extra -= 1
                assert last is not None, "who makes another attempt has said what became of the one before"
                self.statistics.ended(last, now - call.began)
                raise

    def over(self, call: Call, now: float, *, broke: bool = False) -> None:
        """Nobody reads the answer any more, or waits for one. ``broke``: it broke off in the middle.

        Saying it twice is saying it once.
        """
        with self._lock:
            if call.waiting or call.wait:
                self._give_up(call, now)
            if broke and call.tally is not None:
                self._broke(call, now)
            self._end(call, now)

    def sending(self, call: Call, dispatch: Dispatch) -> None:
        """An attempt is about to be sent. To be said where the pipeline is ``observed``; nobody else wants to know."""

    def attempt_over(self, call: Call, outcome: Outcome) -> None:
        """An attempt that was told of is over before the call is; to be said likewise."""

    def substituted(self, call: Call, source: str, age: float = 0.0) -> None:
        """A call through this pipeline failed, and its caller gets something else instead, ``age`` seconds old.

        ``call`` is the trace that the caller gets: of the call that failed, or of the one to another service.
        """
        call.fallback, call.age = source, age
        with self._lock:
            self.statistics.fallbacks += 1

    # Inside

    def _read_key(
        self, call: Call, headers: Mapping[str, str] | None, arguments: Mapping[str, Any] | None
    ) -> int | None:
        call.headers, call.arguments = headers, arguments
        if self._hash is not None:
            call.key = _key(self._hash, headers, arguments)
        return call.key

    def _choose(self, call: Call, now: float, local: bool = False, exclude: Collection[str] = ()) -> None:
        circuits = self.circuits
        if self.faults is not None:
            call.abort = self.faults.abort()
        if local:
            call.local = True
        if call.local:
            if circuits is not None and not circuits.admit(call, None, now):
                call.refused = "breaker"
                raise circuits.refusal(call, now)
            return
        balancer = self.balancer
        if now >= balancer.due:
            balancer.refresh(now)
        if call.tried:
            endpoint = self._another(call, now)
        elif exclude:
            endpoint = balancer.pick(now, call.key, exclude)
        else:
            endpoint = balancer.picker.pick(now, call.key)
        if endpoint is None:
            raise self._nobody()
        if circuits is not None and not circuits.admit(call, endpoint, now):
            endpoint = self._elsewhere(call, circuits, now, {endpoint.id, *exclude})
        call.endpoint = endpoint
        tally = call.tally = self._tallies.setdefault(endpoint.id, Tally())
        tally.in_flight += 1

    def _another(self, call: Call, now: float) -> Endpoint | None:
        """One that was not tried; when all were, the same one again is better than giving up."""
        return self.balancer.pick(now, call.key, _tried(call)) or self.balancer.picker.pick(now, call.key)

    def _elsewhere(self, call: Call, circuits: Circuits, now: float, out: set[str]) -> Endpoint:
        """An endpoint whose circuit lets the attempt through, none of ``out``. Raises CircuitOpen.

        One that was tried is better than giving up, as in ``_another``.
        """
        tried = _tried(call) - out
        for left_out in (out | tried, out) if tried else (out,):
            while circuits.per_endpoint and (endpoint := self.balancer.pick(now, call.key, left_out)) is not None:
                if circuits.admit(call, endpoint, now):
                    return endpoint
                left_out.add(endpoint.id)
                out.add(endpoint.id)
        call.refused = "breaker"
        raise circuits.refusal(call, now)

    def _learn(self, call: Call, outcome: Outcome, now: float) -> None:
        """An attempt did not go well."""
        seconds = call.seconds = now - call.sent_at
        if outcome.counted:
            failed = outcome.failed
            tally = call.tally
            if tally is not None:
                tally.observe(now, seconds, self._decay, self._error_penalty if failed else 0.0)
                tally.failures += failed
                outlier = self._outlier
                if outlier is not None and (failed or outlier.attentive):
                    self.balancer.judge(call.endpoint, not failed, now)  # type: ignore[arg-type]  # a tally has one
            budget = self._budget
            if budget is not None:
                if call.borrowed:
                    self._give_back(call)
                if failed:
                    budget.failed(now, self._retrying.retryable.costs(outcome))
                elif budget.attentive:
                    budget.succeeded(now)
        if self.circuits is not None:
            self.circuits.learn(call, outcome, seconds, now)
        for learner in self._learners:
            learner.learn(call, outcome, seconds, now)

    def _next(self, call: Call, outcome: Outcome, now: float) -> float | None:
        """Seconds to wait before another attempt; None: no further one."""
        made = len(call.tried) + 1
        retrying = self._retrying
        if (call.once and outcome.sent) or (call.deadline is not None and now >= call.deadline):
            return None
        if not retrying.retryable.allows(outcome, call.idempotent):
            return None
        if not outcome.sent and made < MAX_UNSENT and not call.local:
            out = {attempt.endpoint.id for attempt in call.attempts if attempt.endpoint is not None}
            if self.balancer.has_others(out):
                return 0.0
        if retrying.schedule is None or made >= retrying.attempts:
            return None
        delay = retrying.schedule.delay(made - call.rested, outcome.pushback, self._rng)
        if outcome.pushback is not None:
            call.rested = made
        # Waiting until the deadline would only put off what is certain.
        if delay is None or (call.deadline is not None and now + delay >= call.deadline):
            return None
        if self._budget is not None:
            if not self._budget.allows(now):
                return None
            call.borrowed = True
        return delay

    def _give_back(self, call: Call) -> None:
        assert self._budget is not None
        call.borrowed = False
        self._budget.released()

    def _forgo(self, call: Call) -> None:
        assert self._budget is not None
        call.borrowed = False
        self._budget.forgone()

    def _give_up(self, call: Call, now: float) -> None:
        """Nobody waits for the call any more. If it was to be sent later, that is what became of it."""
        if call.waiting:
            call.waiting = False
        elif call.outcome is None:
            # Its turn had not come: it was let in, and never sent.
            self._learn(call, CANCELLED, now)
            self.statistics.extra -= 1
            call.endpoint = None
            call.local = False
        else:
            return
        call.outcome = CANCELLED
        self.statistics.ended(CANCELLED, now - call.began)

    def _broke(self, call: Call, now: float) -> None:
        """What began as a good answer was none. Its latency stays, it was true; but it was no reason to come back."""
        tally = call.tally
        assert tally is not None and call.endpoint is not None
        if call.outcome is None:
            tally.failures += 1
            if tally.cost < self._error_penalty:
                tally.cost, tally.cost_at = self._error_penalty, now
            self.statistics.failures += 1
            if self.balancer.outlier is not None:
                self.balancer.judge(call.endpoint, False, now)

    def _end(self, call: Call, now: float) -> None:
        tally = call.tally
        if tally is not None:
            tally.in_flight -= 1
            call.tally = None
        circuit = call.circuit
        if circuit is not None:
            # Never sent, or given up without a word: another one may have its place as a probe.
            call.circuit = None
            circuit.release(call.permit)
        if call.borrowed:
            self._forgo(call)
        if call.admitted:
            admitted, call.admitted = call.admitted, 0
            for gate in self._gates[:admitted]:
                gate.leave(call, now)

    def _refuse(self, call: Call, error: Exception, now: float) -> None:
        if call.admitted < len(self._gates):
            call.refused = self._gates[call.admitted].section
        self.statistics.refused(refusing_section(call, error))
        self._end(call, now)
        error.__dict__["trimtab"] = call


def refusing_section(call: Call, error: Exception) -> str:
    """The section of the policy that kept a call from being sent, "endpoints" when there was nobody to send it to."""
    return call.refused or ("timeout" if isinstance(error, DeadlineExceeded) else "endpoints")


def _tried(call: Call) -> set[str]:
    return {attempt.endpoint.id for attempt in call.tried if attempt.endpoint is not None}


def _key(hash_: HashKey, headers: Mapping[str, str] | None, arguments: Mapping[str, Any] | None) -> int | None:
    found: Any = None  # an argument is of any type
    if hash_.header is not None and headers is not None:
        found = headers.get(hash_.header)
    if found is None and hash_.argument is not None and arguments is not None:
        found = arguments.get(hash_.argument)
    return None if found is None else hash_key(str(found))


def _too_late(call: Call) -> DeadlineExceeded:
    call.refused = "timeout"
    if call.wait:
        return DeadlineExceeded(
            f"{call.service}: the call would have to wait {call.wait:.3g} s, longer than its deadline"
        )
    return DeadlineExceeded(f"{call.service}: the deadline was over before the call began")
