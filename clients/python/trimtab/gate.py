"""The gate of a service that this process serves: lets calls in as its policies say, live.

The same gate serves threads and event loops. It never waits: a call that must wait is a ``Visit`` with a time ``until``, and
how to wait for that, or to be woken, is the business of whoever brought the call.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from trimtab.calling.clock import RealClock
from trimtab.core.calling.rules import Release
from trimtab.core.clock import Clock
from trimtab.core.limiting.shedding import ADMITTED, Admission, Priority, Queued, Reason, Ticket
from trimtab.core.serving import Arrival, Entrance, ServerRules
from trimtab.errors import DeadlineExceeded, Overloaded, RateLimited, Rejected, TrimtabError
from trimtab.policy.model import EVERY

E = TypeVar("E", bound=TrimtabError)
_PRIORITIES = {priority.name.lower(): priority for priority in Priority}


def _nobody() -> None:
    """Nobody waits."""


class Tallied(NamedTuple):
    """What became of the calls that a ``server`` section held for, so far; ``waiting`` and ``places`` are as it is now.

    ``refused``: by the code of the error, as "call.overloaded". ``places``: for each place of a document that limits
    concurrency the calls inside and the limit.
    """

    admitted: int
    refused: dict[str, int]
    waiting: int
    places: dict[str, tuple[int, int]]


class Visit:
    """A call at the gate: it waits while ``until`` is not None, and is inside from then on.

    Call ``proceed`` at ``until``, or earlier when ``wake`` was called (by any thread), until it is inside or refused; and
    ``leave`` in any case. Times in seconds of ``clock``.
    """

    __slots__ = (
        "_gate",
        "admission",
        "call",
        "clock",
        "entered",
        "entrance",
        "over",
        "priority",
        "refusal",
        "ticket",
        "until",
        "wake",
    )

    def __init__(self, gate: Gate, entrance: Entrance, call: Arrival, priority: Priority) -> None:
        self._gate = gate
        self.clock = gate.clock
        self.entrance = entrance
        self.call = call
        self.priority = priority
        self.until: float | None = None
        self.wake: Callable[[], None] = _nobody
        self.admission: Admission | None = None
        self.ticket: Ticket | None = None
        self.entered = 0.0
        self.refusal: TrimtabError | None = None
        self.over = False

    def proceed(self, now: float) -> None:
        """Go a step further, if it is time. Raises Rejected, DeadlineExceeded."""
        self._gate.proceed(self, now)

    def leave(self, now: float, ok: bool = True) -> None:
        """The call was served, or its caller went away, or it was refused. ``ok`` False: how long it took says nothing.

        Saying it twice is saying it once.
        """
        self._gate.leave(self, now, ok)


class Gate:
    """What lets calls into a service, by the ``server`` sections of the policies that hold for it. Thread-safe.

    ``name`` is ``NAMESPACE/SERVICE``. ``wake``: has the process follow the policies again after a fork.
    """

    def __init__(
        self,
        name: str,
        policies: Mapping[str, Release | None] | None = None,
        wake: Callable[[], None] = _nobody,
        rng: random.Random | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.clock = clock or RealClock()
        self.policies: dict[str, Release | None] = dict(policies or {})
        self._wake_mesh = wake
        self._rng = rng or random.Random()
        self._begin()
        self._asleep = False

    def revive(self) -> None:
        """Begin anew in a forked child: the policies stay, the parent's calls are not ours."""
        self._begin()
        self._asleep = True

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Ticket, Visit] = {}
        self._admitted = 0
        self._refused: dict[str, int] = {}
        self._rules = self._made(self.policies)

    # Policies, by the stream's thread

    def prepare(self, policy: str, release: Release | None) -> Callable[[], None]:
        """Return what makes a policy the current one. Any policy can be: what servers do needs nothing that may be missing."""
        return lambda: self.enact(policy, release, self.clock.now())

    def enact(self, policy: str, release: Release | None, now: float) -> None:
        """Make a policy the current one. Calls that are inside stay; those that wait may be let in by it."""
        policies = {**self.policies, policy: release}
        rules = self._made(policies)
        with self._lock:
            self.policies, before, self._rules = policies, self._rules, rules
            woken = self._started(rules.take_over(before, now), now)
        _wake(woken)

    def answered(self, policy: str) -> None:
        """A server told what there is to know of a policy. Nobody waits for that: calls are served meanwhile."""

    def _made(self, policies: Mapping[str, Release | None]) -> ServerRules:
        own, every = policies.get(self.name), policies.get(f"{self.name.partition('/')[0]}/{EVERY}")
        return ServerRules(own.policy if own else None, every.policy if every else None, self._rng)

    # Calls

    def read(self) -> Tallied:
        """Return everything counted so far. A deadline that is over counts as a refusal with or without a policy."""
        with self._lock:
            places = {
                str(origin): (bulkhead.in_flight, bulkhead.limit) for origin, bulkhead in self._rules.bulkheads.items()
            }
            return Tallied(self._admitted, dict(self._refused), len(self._waiting), places)

    @property
    def idle(self) -> bool:
        """No policy says anything of servers: whoever is in time may in, without ``arrive``."""
        return self._rules.idle and not self._asleep

    @property
    def needs_headers(self) -> bool:
        """Headers of calls matter."""
        return self._rules.needs_headers

    def arrive(self, call: Arrival, now: float) -> Visit | None:
        """A call comes in. None: nothing holds it, and nobody has to be told when it is over.

        Raises Overloaded or RateLimited, with the seconds until it is worth another try, and DeadlineExceeded.
        """
        if self._asleep:
            self._asleep = False
            self._wake_mesh()
        if call.deadline <= now:
            with self._lock:
                raise self._late()
        if self._rules.idle:
            return None
        displaced = None
        with self._lock:
            entrance, priority = self._rules.door(call)
            if entrance is None:
                return None
            visit = Visit(self, entrance, call, _PRIORITIES.get(call.priority, priority))
            turn = entrance.turn(call, now)
            if turn < 0.0:
                raise self._counted(
                    RateLimited(
                        f"{self.name}: more calls than this instance takes; try again in {-turn:.3g} s",
                        retry_after=-turn,
                        service=self.name,
                    )
                )
            visit.entered = now + turn
            if visit.entered >= call.deadline:
                entrance.refund(call, visit.entered, now)
                raise self._late()
            if turn > 0.0:
                visit.until = visit.entered
            else:
                displaced = self._join(visit, now)
        if displaced is not None:
            displaced.wake()
        return visit

    def proceed(self, visit: Visit, now: float) -> None:
        """See ``Visit.proceed``."""
        woken: list[Visit] = []
        try:
            with self._lock:
                until = visit.until
                if until is None or visit.refusal is not None or now < until:
                    pass
                elif visit.ticket is None:
                    displaced = self._join(visit, now)
                    if displaced is not None:
                        woken.append(displaced)
                else:
                    assert visit.admission is not None
                    for ticket in visit.admission.expire(now):
                        expired = self._waiting.pop(ticket, None)
                        if expired is not None:
                            expired.refusal = self._expired(expired, now)
                            woken.append(expired)
        finally:
            _wake(woken)
        if visit.refusal is not None:
            raise visit.refusal

    def leave(self, visit: Visit, now: float, ok: bool) -> None:
        """See ``Visit.leave``."""
        with self._lock:
            if visit.over:
                return
            visit.over = True
            admission, ticket = visit.admission, visit.ticket
            if visit.until is not None:
                if ticket is None:
                    visit.entrance.refund(visit.call, visit.until, now)
                elif admission is not None and self._waiting.pop(ticket, None) is not None:
                    admission.abandon(ticket)
                return
            if admission is None:
                return
            late = now >= visit.call.deadline
            left = admission.leave(now, now - visit.entered if ok else None, ok and late)
            if not left:
                return
            woken = self._started(left, now)
        _wake(woken)

    def _join(self, visit: Visit, now: float) -> Visit | None:
        """Give a call a place or a ticket. Returns the one that lost its own. Raises what refuses it."""
        admission = visit.entrance.admission
        if admission is None:
            self._admitted += 1
            visit.until = None
            return None
        decision = admission.arrive(now, visit.priority, visit.call.deadline)
        if decision is ADMITTED:
            self._admitted += 1
            visit.admission, visit.entered, visit.until = admission, now, None
            return None
        if isinstance(decision, Queued):
            visit.admission, visit.ticket, visit.until = admission, decision.ticket, decision.ticket.until
            self._waiting[decision.ticket] = visit
            if decision.displaced is None:
                return None
            displaced = self._waiting.pop(decision.displaced)
            displaced.refusal = self._full(admission, "a more important one took its place in the queue")
            return displaced
        visit.over = True
        visit.entrance.refund(visit.call, visit.entered, now)
        raise self._late() if decision.reason is Reason.LATE else self._full(admission, decision.reason.value)

    def _started(self, tickets: Iterable[Ticket], now: float) -> list[Visit]:
        started = [self._waiting.pop(ticket) for ticket in tickets]
        self._admitted += len(started)
        for visit in started:
            visit.entered, visit.until = now, None
        return started

    def _expired(self, visit: Visit, now: float) -> TrimtabError:
        assert visit.admission is not None
        return self._late() if now >= visit.call.deadline else self._full(visit.admission, "no place came free in time")

    def _full(self, admission: Admission, why: str) -> Rejected:
        told = f"{self.name}: not taken on, {why}"
        return self._counted(Overloaded(told, retry_after=admission.retry_after(), service=self.name))

    def _late(self) -> DeadlineExceeded:
        return self._counted(DeadlineExceeded(f"{self.name}: the deadline of the call was over before it could begin"))

    def _counted(self, error: E) -> E:
        """A call is refused with this. With the lock held."""
        self._refused[error.code] = self._refused.get(error.code, 0) + 1
        return error


def _wake(visits: Iterable[Visit]) -> None:
    for visit in visits:
        visit.wake()
