"""What this process knows of the services it calls. Written by the stream's thread, read by every caller."""

from __future__ import annotations

import itertools
import logging
import random
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future

from trimtab.calling.clock import RealClock
from trimtab.calling.crew import RealCrew
from trimtab.core.calling.parts import Surroundings
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.calling.rules import Caller, Release, Rules
from trimtab.core.calling.statistics import Statistics
from trimtab.core.clock import Clock
from trimtab.core.crew import Crew
from trimtab.core.endpoints import Health, Mismatch, ServiceState, decode
from trimtab.errors import MeshClosed, MissingExtra, NoEndpoints
from trimtab.gate import Gate
from trimtab.policy.canonical import decode as decode_policy
from trimtab.policy.model import EVERY
from trimtab.v1.mesh_pb2 import Refusal
from trimtab.v1.types_pb2 import Kind, Resource

logger = logging.getLogger("trimtab")

Predicate = Callable[["Callee"], bool]
_REASON_LIMIT = 1024


def policies_of(service: str) -> tuple[str, str]:
    """The names of the two policies that hold for a service: its own, and the one for all of its namespace."""
    return service, f"{service.partition('/')[0]}/{EVERY}"


class Callee:
    """A service that this process calls or watches: its newest state, and the rules for calls to it.

    ``settled``: a server answered, or none could be reached, so that waiting any longer tells nothing. ``lock`` is held
    around each half of a call and around every change, so that what they count is exact. ``pipelines``: those of ``pipeline()``
    that are ready, by method, for calls to look into first.
    """

    def __init__(
        self,
        name: str,
        caller: Caller,
        nobody: Callable[[Callee], Exception],
        state: ServiceState | None = None,
        policies: Mapping[str, Release | None] | None = None,
        rng: random.Random | None = None,
        clock: Clock | None = None,
        crew: Crew | None = None,
    ) -> None:
        self.name = name
        self._caller = caller
        self._nobody = nobody
        self._rng = rng or random.Random()
        self._clock = clock or RealClock()
        self._crew = crew or RealCrew()
        self._sequence = itertools.count(self._rng.getrandbits(16))
        self._listeners: list[Callable[[ServiceState], None]] = []
        self.policies: dict[str, Release | None] = dict(policies or {})
        self.revive(state or ServiceState(name))

    def revive(self, state: ServiceState) -> None:
        """Begin with what is known from elsewhere: from disk, or in a forked child from its parent, whose calls are not ours."""
        self.statistics = Statistics()
        self.settled = False
        self.confirmed = False
        self.unanswered = set(policies_of(self.name))
        self.lock = threading.RLock()
        self._waiting: list[tuple[Predicate, Future[None]]] = []
        self._closed = False
        self.state = state
        self.rules = self._rules(self.policies, None)
        self.pipelines: Mapping[str, Pipeline] = self.rules.by_method

    def swap(self, state: ServiceState) -> None:
        """Make ``state`` the current one: a call that begins now picks from it."""
        with self.lock:
            self.state = state
            self.rules.update(state, self._clock.now())
            self.confirmed = True
            self.settled = self.settled or not self.unanswered
            listeners = list(self._listeners)
        self._wake()
        for listener in listeners:
            listener(state)

    def prepare(self, policy: str, release: Release | None) -> Callable[[], None]:
        """Return what makes a policy the current one. Raises what says that it cannot be applied here."""
        policies = {**self.policies, policy: release}
        # Without the lock, which calls wait for.
        rules = self._rules(policies, self.rules)

        def adopt() -> None:
            with self.lock:
                self.rules.retire()
                self.policies, self.rules, self.pipelines = policies, rules, rules.by_method
                rules.take_effect(self.state, self._clock.now())

        return adopt

    def retire(self) -> None:
        """Nobody follows it any more: who keeps one of its pipelines from call to call is to discover it again."""
        with self.lock:
            self.rules.retire()

    def answered(self, policy: str) -> None:
        """A server told what there is to know of a policy."""
        self.unanswered.discard(policy)
        if self.confirmed and not self.unanswered:
            self.settle()

    def _rules(self, policies: Mapping[str, Release | None], before: Rules | None) -> Rules:
        own, every = policies_of(self.name)
        surroundings = Surroundings(
            service=self.name,
            lock=self.lock,
            rng=self._rng,
            tallies=self.state.tallies,
            nobody=lambda: self._nobody(self),
            statistics=self.statistics,
            clock=self._clock,
            crew=self._crew,
        )
        return Rules(
            surroundings,
            self._caller,
            self._sequence,
            self.state,
            self._clock.now(),
            service=policies.get(own),
            namespace=policies.get(every),
            before=before,
        )

    def pipeline(self, method: str, path: str = "", headers: Mapping[str, str] | None = None) -> Pipeline:
        """What a call goes through."""
        found = self.rules.by_method.get(method)
        if found is not None:
            return found
        with self.lock:
            return self.rules.pipeline(method, self._clock.now(), path, headers or {})

    def settle(self) -> None:
        """No server can be reached: whoever waits goes on with what there is."""
        with self.lock:
            # Who listens was told nothing as long as there was only what is known from elsewhere.
            listeners = [] if self.settled or self.confirmed else list(self._listeners)
            self.settled, state = True, self.state
        self._wake()
        for listener in listeners:
            listener(state)

    def when(self, predicate: Predicate) -> Future[None]:
        """Return a future that is done as soon as ``predicate`` holds of this service. It fails with MeshClosed."""
        future: Future[None] = Future()
        with self.lock:
            holds, closed = predicate(self), self._closed
            if not holds and not closed:
                self._waiting.append((predicate, future))
                return future
        if holds:
            future.set_result(None)
        else:
            future.set_exception(MeshClosed())
        return future

    def close(self) -> None:
        """Nothing will be told of it any more: whoever still waits hears that."""
        with self.lock:
            self._closed = True
            waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(MeshClosed())

    def listen(self, listener: Callable[[ServiceState], None]) -> Callable[[], None]:
        """Have ``listener`` told of every new state, and of the one there is: it must not block. Returns how to stop."""
        with self.lock:
            self._listeners.append(listener)
            known = self.state if self.settled or self.confirmed else None
        if known is not None:
            listener(known)
        return lambda: self._unlisten(listener)

    def _unlisten(self, listener: Callable[[ServiceState], None]) -> None:
        with self.lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def _wake(self) -> None:
        with self.lock:
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
    """All services that are followed, by full name ``NAMESPACE/SERVICE``.

    ``make`` and ``make_gate`` return what is new from what was saved of it, ``load`` and ``load_policy`` read that.
    """

    def __init__(
        self,
        make: Callable[[str, ServiceState | None, Mapping[str, Release | None]], Callee],
        make_gate: Callable[[str, Mapping[str, Release | None]], Gate],
        load: Callable[[str], ServiceState | None],
        load_policy: Callable[[str], Release | None],
    ) -> None:
        self._make = make
        self._make_gate = make_gate
        self._load = load
        self._load_policy = load_policy
        self._lock = threading.Lock()
        self._callees: dict[str, Callee] = {}
        self._gates: dict[str, Gate] = {}
        # As the wire has them, for the disk.
        self._policies: dict[str, Resource] = {}
        self.refused: dict[str, str] = {}  # policies whose newest document cannot be applied, and why

    def revive(self) -> None:
        """Begin anew in a forked child: the parent's knowledge stays, to be confirmed; its calls are not ours."""
        self._lock = threading.Lock()
        for callee in self._callees.values():
            callee.rules.retire()
            callee.revive(callee.state.unconfirmed())
        for gate in self._gates.values():
            gate.revive()

    def callee(self, name: str) -> tuple[Callee, bool]:
        """Return what is known of ``name`` and whether it is followed only from now on."""
        known = self._callees.get(name)
        if known is not None:
            return known, False
        # Read outside the lock: a slow disk must not hold up other services.
        state = self._load(name)
        policies = {policy: self._load_policy(policy) for policy in policies_of(name)}
        with self._lock:
            known = self._callees.get(name)
            if known is not None:
                return known, False
            fresh = self._callees[name] = self._able(name, state, self._newest(policies))
            return fresh, True

    def _able(self, name: str, state: ServiceState | None, policies: Mapping[str, Release | None]) -> Callee:
        """A new service under those of the policies that can be applied here.

        One that cannot is from disk, or was only needed for serving so far. The server tells of it again, and is refused then.
        """
        try:
            return self._make(name, state, policies)
        except MissingExtra:
            fitting: dict[str, Release | None] = {}
            for policy, release in policies.items():
                try:
                    self._make(name, state, {**fitting, policy: release})
                except MissingExtra as error:
                    logger.warning("policy.refused: %s: %s", policy, error)
                else:
                    fitting[policy] = release
            return self._make(name, state, fitting)

    def gate(self, name: str) -> tuple[Gate, bool]:
        """Return what lets calls into ``name``, which this process serves, and whether it is followed only from now on."""
        known = self._gates.get(name)
        if known is not None:
            return known, False
        policies = {policy: self._load_policy(policy) for policy in policies_of(name)}
        with self._lock:
            known = self._gates.get(name)
            if known is not None:
                return known, False
            fresh = self._gates[name] = self._make_gate(name, self._newest(policies))
            return fresh, True

    def gates(self) -> list[Gate]:
        """Return those of all services that this process serves."""
        with self._lock:
            return list(self._gates.values())

    def _newest(self, policies: dict[str, Release | None]) -> dict[str, Release | None]:
        """What another service of the namespace was told already is newer than the disk."""
        told: dict[str, Release | None] = {}
        followers: list[Callee | Gate] = [*self._callees.values(), *self._gates.values()]
        for follower in followers:
            told |= follower.policies
        return {policy: told.get(policy, release) for policy, release in policies.items()}

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
        # What is counted of calls is counted on in any case.
        state = callee.state
        held = state if callee.confirmed or news.full else ServiceState(callee.name, tallies=state.tallies)
        try:
            state = held.apply(news)
        except Mismatch as mismatch:
            logger.info("%s: %s; asking for the whole", resource.name, mismatch)
            return Refusal(kind=Kind.KIND_ENDPOINTS, name=resource.name, reason=str(mismatch), resend=True)
        callee.swap(state)
        return None

    def apply_policy(self, resource: Resource) -> Refusal | None:
        """Apply a policy to all services that it holds for, or to none. Returns why it cannot be."""
        concerned: list[Callee | Gate] = [*self.callees(), *self.gates()]
        followers = [follower for follower in concerned if resource.name in policies_of(follower.name)]
        refusal: Refusal | None = None
        try:
            release = read_release(resource)
            adopt = [follower.prepare(resource.name, release) for follower in followers]
        except Exception as error:
            # Whatever is wrong with it: the last good one stays in force, and the operator is told.
            reason = str(error) or type(error).__name__
            logger.warning("policy.refused: %s version %d: %s", resource.name, resource.version, reason)
            refusal = Refusal(kind=Kind.KIND_POLICY, name=resource.name, reason=reason[:_REASON_LIMIT])
            self.refused[resource.name] = refusal.reason
        else:
            for step in adopt:
                step()
            self._policies[resource.name] = resource
            self.refused.pop(resource.name, None)
        for follower in followers:
            follower.answered(resource.name)
        return refusal

    def policy(self, name: str) -> Resource | None:
        """Return the policy that is in force, as the wire has it."""
        return self._policies.get(name)

    def unanswerable(self, keys: Collection[tuple[int, str]]) -> None:
        """The server does not tell of these: nobody waits for them."""
        for callee in self.callees():
            if (Kind.KIND_ENDPOINTS, callee.name) in keys:
                callee.settle()
            for policy in policies_of(callee.name):
                if (Kind.KIND_POLICY, policy) in keys:
                    callee.answered(policy)

    def unreachable(self) -> None:
        """No server can be reached."""
        for callee in self.callees():
            callee.settle()

    def close(self) -> None:
        """The mesh is closed."""
        for callee in self.callees():
            callee.close()

    def forget(self, name: str) -> bool:
        """Follow a service no longer. Returns False when it was not followed."""
        with self._lock:
            return self._callees.pop(name, None) is not None

    def find(self, name: str) -> Callee | None:
        """Return what is known of a service that is followed."""
        return self._callees.get(name)

    def calling(self) -> int:
        """Return the number of calls in flight."""
        return sum(t.in_flight for c in self.callees() for t in list(c.state.tallies.values()))


def read_release(resource: Resource) -> Release | None:
    """The policy of a resource, None when there is none (any more). Raises PolicyInvalid."""
    if not resource.HasField("policy"):
        return None
    return Release(decode_policy(resource.policy.document), resource.version)


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
