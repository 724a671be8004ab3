"""What this process knows of the services it calls. Written by the stream's thread, read by every caller."""

from __future__ import annotations

import itertools
import logging
import random
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import replace

from trimtab.core.endpoints import Endpoint, Health, Mismatch, ServiceState, Tally, decode
from trimtab.core.picker import Algorithm, Picker, build_picker
from trimtab.errors import NoEndpoints
from trimtab.v1.mesh_pb2 import EndpointReport, Refusal
from trimtab.v1.types_pb2 import Kind, Resource

logger = logging.getLogger("trimtab")

Predicate = Callable[["Callee"], bool]


class Callee:
    """A service that this process calls or watches: its newest state and the picker made of it.

    ``settled``: a server answered, or none could be reached, so that waiting any longer tells nothing.
    """

    def __init__(self, name: str, algorithm: Algorithm, state: ServiceState | None = None) -> None:
        self.name = name
        self._algorithm = algorithm
        self._sequence = itertools.count(random.getrandbits(16))
        self._listeners: list[Callable[[ServiceState], None]] = []
        self.revive(state or ServiceState(name))

    def revive(self, state: ServiceState) -> None:
        """Begin with what is known from elsewhere: from disk, or in a forked child from its parent."""
        self.settled = False
        self.confirmed = False
        self._lock = threading.Lock()
        self._waiting: list[tuple[Predicate, Future[None]]] = []
        self.state = state
        self.picker: Picker = build_picker(self._algorithm, state, self._sequence)

    def swap(self, state: ServiceState) -> None:
        """Make ``state`` the current one: a call that begins now picks from it."""
        picker = build_picker(self._algorithm, state, self._sequence)
        with self._lock:
            self.state, self.picker = state, picker
            self.confirmed = self.settled = True
            listeners = list(self._listeners)
        self._wake()
        for listener in listeners:
            listener(state)

    def settle(self) -> None:
        """No server can be reached: whoever waits goes on with what there is."""
        self.settled = True
        self._wake()

    def when(self, predicate: Predicate) -> Future[None]:
        """Return a future that is done as soon as ``predicate`` holds of this service."""
        future: Future[None] = Future()
        with self._lock:
            if not predicate(self):
                self._waiting.append((predicate, future))
                return future
        future.set_result(None)
        return future

    def listen(self, listener: Callable[[ServiceState], None]) -> Callable[[], None]:
        """Have ``listener`` told of every new state, by the stream's thread: it must not block. Returns how to stop."""
        with self._lock:
            self._listeners.append(listener)
            known = self.state if self.settled else None
        if known is not None:
            listener(known)
        return lambda: self._unlisten(listener)

    def pick(self, rng: random.Random, exclude: Collection[str]) -> Endpoint | None:
        """Return an endpoint that is not in ``exclude`` (ids), None when there is none."""
        for _ in range(4):
            endpoint = self.picker.pick(rng)
            if endpoint is None or endpoint.id not in exclude:
                return endpoint
        left = [e for e in self.state.eligible() if e.id not in exclude]
        rest = replace(self.state, healthy={e.id: e for e in left}, suspect={})
        return build_picker("p2c", rest, self._sequence).pick(rng)

    def _unlisten(self, listener: Callable[[ServiceState], None]) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def _wake(self) -> None:
        with self._lock:
            done = [future for predicate, future in self._waiting if future.cancelled() or predicate(self)]
            self._waiting = [w for w in self._waiting if w[1] not in done]
        for future in done:
            if future.set_running_or_notify_cancel():
                future.set_result(None)


def has_endpoint(callee: Callee) -> bool:
    """Tell whether somebody can be called."""
    return bool(callee.state.healthy or callee.state.eligible())


def is_settled(callee: Callee) -> bool:
    """Tell whether waiting for a first answer is over."""
    return callee.settled


class Discovery:
    """All services that are followed, by full name ``NAMESPACE/SERVICE``."""

    def __init__(
        self, algorithm: Algorithm, new_tally: Callable[[], Tally], load: Callable[[str], ServiceState | None]
    ) -> None:
        self._algorithm = algorithm
        self._new_tally = new_tally
        self._load = load
        self._lock = threading.Lock()
        self._callees: dict[str, Callee] = {}

    def revive(self) -> None:
        """Begin anew in a forked child: the parent's knowledge stays, to be confirmed; its calls are not ours."""
        self._lock = threading.Lock()
        for callee in self._callees.values():
            callee.revive(callee.state.unconfirmed())

    def callee(self, name: str) -> tuple[Callee, bool]:
        """Return what is known of ``name`` and whether it is followed only from now on."""
        known = self._callees.get(name)
        if known is not None:
            return known, False
        # Read outside the lock: a slow disk must not hold up other services.
        state = self._load(name)
        with self._lock:
            known = self._callees.get(name)
            if known is not None:
                return known, False
            fresh = self._callees[name] = Callee(name, self._algorithm, state)
            return fresh, True

    def callees(self) -> list[Callee]:
        """Return all that are followed."""
        with self._lock:
            return list(self._callees.values())

    def apply(self, resource: Resource) -> Refusal | None:
        """Apply news of a service. Returns a refusal that asks for the whole when a difference does not fit."""
        callee = self._callees.get(resource.name)
        if callee is None:
            return None
        # A state from disk was not claimed to be held: only a confirmed one is a base for differences.
        news = decode(resource)
        held = callee.state if callee.confirmed or news.full else ServiceState(callee.name)
        try:
            state = held.apply(news)
        except Mismatch as mismatch:
            logger.info("%s: %s; asking for the whole", resource.name, mismatch)
            return Refusal(kind=Kind.KIND_ENDPOINTS, name=resource.name, reason=str(mismatch), resend=True)
        callee.swap(state)
        return None

    def unreachable(self) -> None:
        """No server can be reached."""
        for callee in self.callees():
            callee.settle()

    def forget(self, name: str) -> bool:
        """Follow a service no longer. Returns False when it was not followed."""
        with self._lock:
            return self._callees.pop(name, None) is not None

    def find(self, name: str) -> Callee | None:
        """Return what is known of a service that is followed."""
        return self._callees.get(name)

    def report(self, limit: int) -> list[EndpointReport]:
        """Return the calls since the last report, per endpoint, at most ``limit`` entries, most failures first."""
        entries: list[EndpointReport] = []
        for callee in self.callees():
            # Copied in one step: callers add to it while we look.
            for id_, tally in list(callee.state.tallies.items()):
                if not tally.calls:
                    continue
                calls, failures = tally.take()
                busy = max(0, tally.in_flight)
                entries.append(
                    EndpointReport(service=callee.name, endpoint=id_, calls=calls, failures=failures, in_flight=busy)
                )
        entries.sort(key=lambda e: (-e.failures, -e.calls))
        return entries[:limit]

    def calling(self) -> int:
        """Return the number of calls in flight."""
        return sum(t.in_flight for c in self.callees() for t in list(c.state.tallies.values()))

    def tally(self, callee: Callee, id_: str) -> Tally:
        """Return the tally of an endpoint that is called for the first time."""
        return callee.state.tallies.setdefault(id_, self._new_tally())


def explain(callee: Callee, connected: bool, servers: tuple[str, ...], why: str) -> NoEndpoints:
    """Return the error of a call that finds nobody: what is known of the service, and the way out."""
    state, name = callee.state, callee.name
    away = "" if connected else f"; no connection to {', '.join(servers)}" + (f" ({why})" if why else "")
    if not callee.confirmed and not state.endpoints:
        if connected:
            return NoEndpoints(
                f"{name}: the server has not answered yet", service=name, hint="try again, or use wait_ready()"
            )
        return NoEndpoints(
            f"{name}: nothing is known of it{away}, and there is no snapshot on disk",
            service=name,
            hint="check TRIMTAB_SERVERS and that a server runs there",
        )
    if not state.version:
        return NoEndpoints(
            f"{name}: the mesh has never heard of it{away}", service=name, hint="check its name and namespace"
        )
    if not state.endpoints:
        return NoEndpoints(f"{name}: all its instances are gone{away}", service=name, hint="start one")
    stale = ", as read from a snapshot on disk" if state.stale else ""
    return NoEndpoints(f"{name}: {_census(state)}{stale}{away}", service=name, hint="none of them may be called now")


def _census(state: ServiceState) -> str:
    counts: dict[str, int] = {}
    for endpoint in state.endpoints.values():
        label = Health(endpoint.health).name.lower()
        if not endpoint.weight and endpoint.health == Health.HEALTHY:
            label = "with weight 0"
        counts[label] = counts.get(label, 0) + 1
    total = len(state.endpoints)
    parts = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
    return f"{total} instance{'' if total == 1 else 's'}: {parts}"
