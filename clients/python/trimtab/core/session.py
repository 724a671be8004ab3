"""The mesh stream's protocol as a state machine without I/O: messages and commands in, messages and events out.

Its owner connects, sends what ``Step.send`` holds, feeds what arrives, and calls ``tick`` when ``deadline`` says so.
What outlives a stream (the session's handle, subscriptions, registrations) lives here; a new stream begins with ``hello``
and is current from its Welcome on. All times are seconds of one monotonic clock. Not thread-safe: one owner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from trimtab.core.backoff import Rng, full_jitter
from trimtab.core.registration import RETRY_BASE, RETRY_CAP, Wanted
from trimtab.v1.mesh_pb2 import (
    Ack,
    ClientMessage,
    Committed,
    Delta,
    GoAway,
    Goodbye,
    Heartbeat,
    Hello,
    Nack,
    Refusal,
    Report,
    ResourceName,
    ServerMessage,
    Subscribe,
    Subscription,
    Unsubscribe,
    Welcome,
)
from trimtab.v1.mesh_pb2 import Session as SessionMessage
from trimtab.v1.types_pb2 import Error, Instance, Kind, Load, Node, Resource

REQUEST_DEADLINE = 15.0
REPORT_PAUSE = 0.25  # seconds between reports that no heartbeat asks for
_DEFAULT_INTERVAL = 1.0


class Phase(Enum):
    """Where the machine stands towards the server."""

    AWAY = "no stream"
    OPEN = "a stream, nothing to resume or resumed"
    RESUMING = "a stream, the answer to Hello.resume outstanding"
    LEFT = "Goodbye was sent"


class Opened(NamedTuple):
    """A stream is open: Welcome arrived."""

    welcome: Welcome


class Attached(NamedTuple):
    """The session stands, public identity ``id``. ``resumed``: with everything it held before."""

    id: str
    resumed: bool


class Lost(NamedTuple):
    """The session is gone; what is wanted is registered again by the machine."""


class Waiting(NamedTuple):
    """The server cannot reach its store: nothing is lost, an answer follows."""


class Arrived(NamedTuple):
    """Resources to apply. Their owner MUST call ``Session.applied`` with the nonce."""

    delta: Delta


class Stored(NamedTuple):
    """Everything up to ``generation`` of registration ``key`` is stored, visible from ``revision``."""

    key: int
    generation: int
    instance_id: str
    revision: int


class Denied(NamedTuple):
    """The server refused a change of registration ``key``. It will be tried again at times, unless withdrawn."""

    key: int
    generation: int
    error: Error


class Complaint(NamedTuple):
    """The server refuses something about the stream as a whole."""

    error: Error


class Moving(NamedTuple):
    """The server asks to move to another replica."""

    request: GoAway


class Crowded(NamedTuple):
    """More subscriptions than the server takes; these are not followed."""

    keys: tuple[ResourceKey, ...]
    limit: int


class Broken(NamedTuple):
    """The server left the contract or fell silent: drop the stream and open another."""

    reason: str


Event = Opened | Attached | Lost | Waiting | Arrived | Stored | Denied | Complaint | Moving | Crowded | Broken


@dataclass(slots=True)
class Step:
    """What to send, in order, and what happened."""

    send: list[ClientMessage] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class Held(NamedTuple):
    """Version and digest of a resource that is held; zeros for nothing."""

    version: int = 0
    digest: int = 0


ResourceKey = tuple[int, str]


class Session:
    """The protocol machine. ``load`` and ``report`` are asked when a heartbeat is due.

    ``report`` is also asked, with False for "breakers alone", soon after ``report_soon``.
    """

    def __init__(
        self,
        node: Node,
        rng: Rng,
        load: Callable[[], Load] = Load,
        report: Callable[[bool], Report | None] = lambda whole: None,
    ) -> None:
        self.node = node
        self.phase = Phase.AWAY
        self.handle = ""
        self.id = ""
        self.interval = _DEFAULT_INTERVAL
        self.grace = 0.0
        self._rng = rng
        self._load = load
        self._report = report
        self._reported_at = -math.inf
        self._report_due = math.inf
        self._held: dict[ResourceKey, Held] = {}
        self._offered: dict[ResourceKey, Held] = {}
        self._limit = 0
        self._registrations: dict[int, Wanted] = {}
        self._last_key = 0
        self._last_request = 0
        self._next_heartbeat = 0.0

    # Streams come and go

    def hello(self) -> ClientMessage:
        """Return the first message of a new stream. Changes nothing for the current one."""
        self._offered = dict(list(self._held.items())[: self._limit or None])
        subscriptions = [_subscription(key, held) for key, held in self._offered.items()]
        return ClientMessage(hello=Hello(node=self.node, resume=self.handle, subscriptions=subscriptions))

    def broken(self) -> None:
        """The current stream ended."""
        if self.phase is not Phase.LEFT:
            self.phase = Phase.AWAY
        for registration in self._registrations.values():
            registration.interrupted()

    def forget(self, now: float) -> Step:
        """The server knows nothing of the handle: start over without it."""
        return self._lost(now)

    def received(self, message: ServerMessage, now: float) -> Step:
        """Take a message of the server. A Welcome makes its stream the current one."""
        kind = message.WhichOneof("message")
        if self.phase is Phase.LEFT:
            return Step()
        if kind == "welcome":
            return self._welcomed(message.welcome, now)
        if self.phase is Phase.AWAY:
            return Step(events=[Broken(f"the server sent {kind or 'an unknown message'} before its Welcome")])
        match kind:
            case "delta":
                return Step(events=[Arrived(message.delta)])
            case "session":
                return self._session(message.session, now)
            case "committed":
                return self._committed(message.committed, now)
            case "error":
                return self._error(message.error, now)
            case "go_away":
                return Step(events=[Moving(message.go_away)])
            case _:
                # Quota, and whatever later servers may say: the contract wants the unknown ignored.
                return Step()

    def tick(self, now: float) -> Step:
        """Do what time asks for: heartbeats, repeated requests, an end to the server's silence."""
        if self.phase not in (Phase.OPEN, Phase.RESUMING):
            return Step()
        for registration in self._registrations.values():
            if registration.request_id and now - registration.sent_at >= REQUEST_DEADLINE:
                return Step(events=[Broken(f"no answer to a request within {REQUEST_DEADLINE:g} s")])
        step = self._advance(now)
        if now >= self._next_heartbeat:
            # From now, not from when it was due: after a pause of the process one heartbeat is enough.
            self._next_heartbeat = now + self.interval
            step.send.append(ClientMessage(heartbeat=Heartbeat(load=self._load())))
            self._tell(step, True, now)
        elif now >= self._report_due:
            self._tell(step, False, now)
        return step

    def report_soon(self, now: float) -> Step:
        """A breaker changed its state: have ``tick`` report it, at once unless that was done a moment ago."""
        self._report_due = min(self._report_due, max(now, self._reported_at + REPORT_PAUSE))
        return self.tick(now)

    def _tell(self, step: Step, whole: bool, now: float) -> None:
        self._report_due = math.inf
        report = self._report(whole)
        if report is not None:
            self._reported_at = now
            step.send.append(ClientMessage(report=report))

    def deadline(self) -> float | None:
        """Return when ``tick`` is due next, None when no time matters."""
        if self.phase not in (Phase.OPEN, Phase.RESUMING):
            return None
        due = min(self._next_heartbeat, self._report_due)
        for registration in self._registrations.values():
            if registration.request_id:
                due = min(due, registration.sent_at + REQUEST_DEADLINE)
            elif registration.retry_at and not registration.settled and self.phase is Phase.OPEN:
                due = min(due, registration.retry_at)
        return due

    def leave(self, reason: str) -> Step:
        """Say Goodbye: the session ends with all its instances. The machine is of no use afterwards."""
        was, self.phase = self.phase, Phase.LEFT
        if was in (Phase.OPEN, Phase.RESUMING):
            return Step(send=[ClientMessage(goodbye=Goodbye(reason=reason))])
        return Step()

    # What the owner follows

    def subscribe(self, keys: Iterable[ResourceKey]) -> Step:
        """Follow resources from nothing, or start over with one that is followed."""
        fresh = {key: Held() for key in keys}
        self._held.update(fresh)
        if self.phase is Phase.AWAY:
            return Step()
        return self._offer(fresh)

    def unsubscribe(self, keys: Iterable[ResourceKey]) -> Step:
        """Follow resources no longer."""
        gone = [key for key in keys if self._held.pop(key, None) is not None]
        if self.phase is Phase.AWAY or not gone:
            return Step()
        names = [ResourceName(kind=Kind.Name(k), name=name) for k, name in gone]
        return Step(send=[ClientMessage(unsubscribe=Unsubscribe(names=names))])

    def applied(self, delta: Delta, refusals: Iterable[Refusal]) -> Step:
        """Answer a Delta after its resources were applied, but for the refused ones."""
        refused = list(refusals)
        kept = {(r.kind, r.name) for r in refused}
        for resource in delta.resources:
            key = (int(resource.kind), resource.name)
            if key in self._held and key not in kept:
                self._held[key] = Held(resource.version, resource.digest)
        if self.phase not in (Phase.OPEN, Phase.RESUMING):
            return Step()
        if refused:
            return Step(send=[ClientMessage(nack=Nack(nonce=delta.nonce, refusals=refused))])
        return Step(send=[ClientMessage(ack=Ack(nonce=delta.nonce))])

    def follows(self, resource: Resource) -> bool:
        """Tell whether a resource is (still) subscribed to."""
        return (int(resource.kind), resource.name) in self._held

    # What the owner registers

    def register(self, instance: Instance, now: float) -> tuple[int, Step]:
        """Want an instance registered, for as long as nobody withdraws it. Returns its key; generation is 1."""
        self._last_key += 1
        self._registrations[self._last_key] = Wanted(self._last_key, instance)
        return self._last_key, self._advance(now)

    def change(self, key: int, instance: Instance | None, now: float) -> tuple[int, Step]:
        """Want something else of a registration, None: its end. Returns the generation of this change.

        Raises KeyError when it has ended.
        """
        generation = self._registrations[key].want(instance)
        return generation, self._advance(now)

    def withdraw(self, key: int, now: float) -> Step:
        """Give up what was wanted last of a registration: what is stored stays; a registration never stored ends."""
        registration = self._registrations.get(key)
        if registration is None or registration.settled:
            return Step()
        if registration.stored is None:
            return self.change(key, None, now)[1]
        registration.wanted, registration.stored_generation = registration.stored, registration.generation
        return Step()

    def _advance(self, now: float) -> Step:
        step = Step()
        if self.phase is not Phase.OPEN:
            return step
        for registration in list(self._registrations.values()):
            if registration.settled:
                continue
            message = registration.next_request(self._last_request + 1, now)
            if message is not None:
                self._last_request += 1
                step.send.append(message)
            elif registration.settled:
                step.events.append(self._stored(registration, 0))
        return step

    def _stored(self, registration: Wanted, revision: int) -> Stored:
        if registration.stored is None and registration.wanted is None and registration.settled:
            del self._registrations[registration.key]
        return Stored(registration.key, registration.stored_generation, registration.stored_id, revision)

    def _awaiting(self, request_id: int) -> Wanted | None:
        return next((r for r in self._registrations.values() if request_id and r.request_id == request_id), None)

    # What the server says

    def _welcomed(self, welcome: Welcome, now: float) -> Step:
        self.broken()
        self.phase = Phase.RESUMING if self.handle else Phase.OPEN
        self.interval = welcome.heartbeat_interval.ToTimedelta().total_seconds() or _DEFAULT_INTERVAL
        self.grace = welcome.grace.ToTimedelta().total_seconds()
        self._limit = welcome.max_subscriptions
        self._next_heartbeat = now + self.interval
        missing = {key: held for key, held in self._held.items() if self._offered.get(key) != held}
        step = _joined(Step(events=[Opened(welcome)]), self._offer(missing))
        return _joined(step, self._advance(now))

    def _offer(self, wanted: dict[ResourceKey, Held]) -> Step:
        if self._limit and len(self._held) > self._limit:
            beyond = set(list(self._held)[self._limit :])
            crowd = tuple(key for key in self._held if key in beyond)
            wanted = {key: held for key, held in wanted.items() if key not in beyond}
            return _joined(Step(events=[Crowded(crowd, self._limit)]), _subscribe(wanted))
        return _subscribe(wanted)

    def _session(self, told: SessionMessage, now: float) -> Step:
        match told.state:
            case SessionMessage.STATE_ATTACHED:
                resumed = self.phase is Phase.RESUMING
                self.handle, self.id = told.handle or self.handle, told.id
                self.phase = Phase.OPEN
                return _joined(Step(events=[Attached(told.id, resumed)]), self._advance(now))
            case SessionMessage.STATE_LOST:
                return self._lost(now)
            case SessionMessage.STATE_PENDING:
                self.phase = Phase.RESUMING
                return Step(events=[Waiting()])
            case _:
                return Step()

    def _lost(self, now: float) -> Step:
        self.handle, self.id = "", ""
        if self.phase is Phase.RESUMING:
            self.phase = Phase.OPEN
        for registration in self._registrations.values():
            registration.lost()
        return _joined(Step(events=[Lost()]), self._advance(now))

    def _committed(self, told: Committed, now: float) -> Step:
        registration = self._awaiting(told.request_id)
        if registration is None:
            return Step()
        registration.committed(told.instance_id)
        step = Step(events=[self._stored(registration, told.revision)])
        return _joined(step, self._advance(now))

    def _error(self, error: Error, now: float) -> Step:
        if not error.request_id:
            return Step(events=[Complaint(error)])
        registration = self._awaiting(error.request_id)
        if registration is None:
            return Step()
        if error.code == "instance.not_found" and (registration.stored or registration.doubtful):
            registration.unknown()
            return self._advance(now)
        registration.refused(now + RETRY_BASE + full_jitter(registration.attempts, RETRY_BASE, RETRY_CAP, self._rng))
        step = Step(events=[Denied(registration.key, registration.sent_generation, error)])
        # What was changed meanwhile may well be accepted.
        if registration.generation != registration.sent_generation:
            registration.retry_at = 0.0
        return _joined(step, self._advance(now))


def _subscription(key: ResourceKey, held: Held) -> Subscription:
    return Subscription(kind=Kind.Name(key[0]), name=key[1], version=held.version, digest=held.digest)


def _subscribe(wanted: dict[ResourceKey, Held]) -> Step:
    if not wanted:
        return Step()
    subscriptions = [_subscription(key, held) for key, held in wanted.items()]
    return Step(send=[ClientMessage(subscribe=Subscribe(subscriptions=subscriptions))])


def _joined(first: Step, second: Step) -> Step:
    return Step(first.send + second.send, first.events + second.events)
