"""The supervised stream: one thread owns the protocol machine, connects, reconnects, and never gives up.

Other threads post commands and never wait here. Streams deliver into the same inbox, so everything happens in one order.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from trimtab.connection import Connection, Ended, Received, refused
from trimtab.core.backoff import full_jitter
from trimtab.core.session import (
    Arrived,
    Attached,
    Broken,
    Complaint,
    Event,
    Lost,
    Moving,
    Opened,
    Session,
    Step,
    Waiting,
)
from trimtab.errors import Refused
from trimtab.settings import Settings
from trimtab.v1.mesh_pb2 import GoAway, Refusal
from trimtab.v1.types_pb2 import Resource

WELCOME_DEADLINE = 5.0
_FIRST_DELAY = 0.025
_BASE_DELAY = 0.1
_MAX_DELAY = 2.0
_STEADY = 2.0
_LONGEST_PARK = 10.0

logger = logging.getLogger("trimtab")

Command = Callable[[Session, float], Step]


class Observer(Protocol):
    """Who is told. Called by the stream's thread; must not block and must not raise."""

    def happened(self, event: Event, session: Session, now: float) -> Step:
        """Take an event of the protocol. Returns what follows from it."""
        ...

    def apply(self, resource: Resource) -> Refusal | None:
        """Apply a resource, or say why not."""
        ...

    def unreachable(self) -> None:
        """Every server was tried and none gave a Welcome."""
        ...


@dataclass(slots=True)
class Link:
    """What is known of the connection, for people. Written by the stream's thread alone, each field whole."""

    server: str = ""
    replica: str = ""
    connected: bool = False
    session: str = ""
    session_state: str = "none"
    connects: int = 0
    last_error: Refused | None = None
    away_since: float | None = None


class _Park:
    """A pause of the stream without any connection, for a fork."""

    def __init__(self) -> None:
        self.parked = threading.Event()
        self.over = threading.Event()


class Stream:
    """Keeps one stream to one of the servers, from ``start`` to ``close``."""

    def __init__(
        self,
        settings: Settings,
        session: Session,
        observer: Observer,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.link = Link()
        self._settings = settings
        self._session = session
        self._observer = observer
        self._clock = clock
        self._rng = rng or random.Random()
        self._inbox: queue.SimpleQueue[Received | Ended | _Park | Command | None] = queue.SimpleQueue()
        self._park: _Park | None = None
        self._thread = threading.Thread(target=self._run, name="trimtab-stream", daemon=True)
        # All clients begin with the same list: each in its own order spreads them over the replicas.
        self._servers = self._rng.sample(settings.servers, len(settings.servers))
        self._turn = 0
        self._failures = 0
        self._tried = 0
        self._current: Connection | None = None
        self._candidate: Connection | None = None
        self._connect_at: float | None = None
        self._candidate_since = 0.0
        self._opened_at = 0.0
        self._leave_by: float | None = None

    def start(self) -> None:
        """Begin. Returns at once."""
        self._thread.start()

    def post(self, command: Command) -> None:
        """Have ``command`` done to the protocol machine, soon and in order. Never blocks."""
        self._inbox.put(command)

    def close(self, timeout: float) -> None:
        """Say Goodbye, end the stream and its thread. Returns when done or after ``timeout`` seconds."""
        self._inbox.put(None)
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(timeout)

    def park(self, timeout: float) -> bool:
        """Close every connection and stand still until ``unpark``. The session stays. Returns False after ``timeout`` s."""
        if self._thread is threading.current_thread() or not self._thread.is_alive():
            return False
        if self._park is None:
            self._park = _Park()
            self._inbox.put(self._park)
        return self._park.parked.wait(timeout)

    def unpark(self) -> None:
        """Connect again and go on."""
        park, self._park = self._park, None
        if park is not None:
            park.over.set()

    # The loop

    def _run(self) -> None:
        self._connect_at = self._clock()
        while True:
            item = self._next()
            now = self._clock()
            if item is None:
                if self._leave(now):
                    break
            elif isinstance(item, Received):
                self._received(item, now)
            elif isinstance(item, Ended):
                if self._ended(item, now):
                    break
            elif isinstance(item, _Park):
                self._rest(item)
            elif item is not _NOTHING:
                self._do(item(self._session, now))
            if self._leave_by is not None:
                if now >= self._leave_by:
                    break
                continue
            self._time(now)
        self._disconnect()

    def _disconnect(self) -> None:
        for connection in (self._candidate, self._current):
            if connection is not None:
                connection.close()
                connection.join(1.0)
        self._candidate = self._current = None
        self._away()

    def _away(self) -> None:
        if self.link.connected:
            self.link.connected, self.link.away_since = False, self._clock()

    def _rest(self, park: _Park) -> None:
        self._disconnect()
        self._session.broken()
        park.parked.set()
        # Bounded: whoever parked may never come back.
        park.over.wait(_LONGEST_PARK)
        if self._leave_by is None:
            self._connect_at = self._clock()

    def _next(self) -> Received | Ended | _Park | Command | None:
        due = [t for t in (self._connect_at, self._leave_by, self._session.deadline()) if t is not None]
        if self._candidate is not None:
            due.append(self._candidate_since + WELCOME_DEADLINE)
        wait = max(0.0, min(due) - self._clock()) if due else None
        try:
            return self._inbox.get(timeout=wait)
        except queue.Empty:
            return _NOTHING

    def _time(self, now: float) -> None:
        if self._candidate is not None and now >= self._candidate_since + WELCOME_DEADLINE:
            silent, self._candidate = self._candidate, None
            silent.close()
            self._unwelcome(Refused("stream.silent", f"no Welcome within {WELCOME_DEADLINE:g} s", retryable=True), now)
        if self._connect_at is not None and now >= self._connect_at and self._candidate is None:
            self._connect(now)
        deadline = self._session.deadline()
        if deadline is not None and now >= deadline:
            self._do(self._session.tick(now))

    # Connections

    def _connect(self, now: float) -> None:
        server = self._servers[self._turn % len(self._servers)]
        self._connect_at = None
        self._candidate_since = now
        self._candidate = Connection(server, self._settings, self._inbox.put)
        self._candidate.send(self._session.hello())

    def _received(self, item: Received, now: float) -> None:
        if item.connection is self._candidate:
            if item.message.WhichOneof("message") != "welcome":
                return self._drop(f"{item.connection.server} did not begin with a Welcome", now)
            # From here on this stream is the current one; an older one served until now.
            old, self._current, self._candidate = self._current, item.connection, None
            if old is not None:
                old.close()
            self._opened_at, self._tried = now, 0
            self.link.server, self.link.replica = item.connection.server, item.message.welcome.replica
            self.link.connected, self.link.last_error, self.link.away_since = True, None, None
            self.link.connects += 1
            logger.info("connected to %s (%s)", self.link.server, self.link.replica)
        elif item.connection is not self._current:
            return None
        return self._do(self._session.received(item.message, now))

    def _ended(self, item: Ended, now: float) -> bool:
        """Take the end of a stream. Returns True when that was all there was to wait for."""
        if item.connection is self._candidate:
            self._candidate = None
            item.connection.close()
            self._unwelcome(item.refusal, now)
        elif item.connection is self._current:
            self._current = None
            item.connection.close()
            if self._leave_by is not None:
                return True
            if now - self._opened_at >= _STEADY:
                self._failures = 0
            self._session.broken()
            self._away()
            self._failed(item.refusal, now)
        return False

    def _unwelcome(self, refusal: Refused | None, now: float) -> None:
        self._failed(
            refusal or Refused("stream.closed", "the server ended the stream without a Welcome", retryable=True), now
        )
        self._tried += 1
        if self._current is None and self._tried >= len(self._servers):
            self._observer.unreachable()

    def _failed(self, refusal: Refused | None, now: float) -> None:
        if refusal is not None:
            known = self.link.last_error
            level = logging.DEBUG if known is not None and known.code == refusal.code else logging.WARNING
            logger.log(level, "stream to %s: %s", self._servers[self._turn % len(self._servers)], refusal)
            self.link.last_error = refusal
            if refusal.code.startswith("session."):
                self._do(self._session.forget(now))
        self._turn += 1
        self._failures += 1
        rounds = (self._failures - 1) // len(self._servers)
        if self._candidate is None:
            # The first round over all servers is quick: static stability is served best by a short gap.
            delay = full_jitter(rounds - 1, _BASE_DELAY, _MAX_DELAY, self._rng) if rounds else 0.0
            self._connect_at = now + max(delay, _FIRST_DELAY * self._rng.random())

    def _drop(self, reason: str, now: float) -> None:
        connection = self._candidate or self._current
        logger.warning("stream dropped: %s", reason)
        if connection is self._candidate:
            self._candidate = None
        else:
            self._current = None
            self._session.broken()
            self._away()
        if connection is not None:
            connection.close()
        self._failed(Refused("stream.protocol", reason, retryable=True), now)

    def _move(self, request: GoAway, now: float) -> None:
        spread = request.spread.ToTimedelta().total_seconds()
        self._turn += 1
        self._failures = 0
        self._connect_at = now + spread * self._rng.random()
        logger.info("asked to leave %s: %s", self.link.server, request.reason or "no reason given")

    def _leave(self, now: float) -> bool:
        """Say Goodbye. Returns True when there is nobody to say it to."""
        step = self._session.leave("stopped")
        if self._current is None or not step.send:
            return True
        self._send(step)
        self._leave_by = now + 1.0
        return False

    # Steps of the machine

    def _send(self, step: Step) -> None:
        if self._current is not None:
            for message in step.send:
                self._current.send(message)

    def _do(self, step: Step) -> None:
        self._send(step)
        for event in step.events:
            match event:
                case Arrived(delta):
                    self._do(self._session.applied(delta, self._refusals(delta.resources)))
                case Moving(request):
                    self._move(request, self._clock())
                case Broken(reason):
                    self._drop(reason, self._clock())
                case Complaint(error):
                    self.link.last_error = refused(error)
                    logger.warning("the server complains: %s", self.link.last_error)
                case Opened():
                    self.link.session_state = "resuming" if self._session.handle else "none"
                case Attached(id_):
                    self.link.session, self.link.session_state = id_, "attached"
                case Waiting():
                    self.link.session_state = "pending"
                case Lost():
                    self.link.session, self.link.session_state = "", "lost"
            self._do(self._observer.happened(event, self._session, self._clock()))

    def _refusals(self, resources: Iterable[Resource]) -> list[Refusal]:
        refusals = (self._observer.apply(resource) for resource in resources if self._session.follows(resource))
        return [refusal for refusal in refusals if refusal is not None]


def _nothing(session: Session, now: float) -> Step:
    return Step()


_NOTHING: Command = _nothing
