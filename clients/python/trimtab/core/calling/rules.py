"""The policies of one service as pipelines, ready before a call needs them.

Rules are made anew for every change of a policy and swapped in as a whole. What has a state (a circuit, a budget, a
limiter) is taken over from the rules before as long as its own section did not change, so that an operator who changes a
timeout resets no circuit; calls under way go on with the pipeline that they began with. What is known of endpoints outlives
also a change of how calls are balanced.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from trimtab.core.balancing.build import require
from trimtab.core.breaking.breaker import State
from trimtab.core.calling.balancer import Balancer
from trimtab.core.calling.circuits import Circuits
from trimtab.core.calling.events import CircuitChanged, EndpointEjected, EndpointReturned, Event
from trimtab.core.calling.fallbacks import Fallbacks
from trimtab.core.calling.gates import ConcurrencyGate, FaultDelay, KeyedRateGate, RateGate, ThrottleGate
from trimtab.core.calling.hedged import Hedged
from trimtab.core.calling.load_listener import LoadListener
from trimtab.core.calling.mirroring import Mirroring
from trimtab.core.calling.observed import Listener, ObservedPipeline
from trimtab.core.calling.parts import Gate, Learner, Retrying, Surroundings
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.endpoints import ServiceState
from trimtab.core.faults import Faults
from trimtab.core.limiting.bulkhead import Bulkhead
from trimtab.core.limiting.limiter import may_go_on
from trimtab.core.retrying.budget import build_budget
from trimtab.core.retrying.conditions import Retryable
from trimtab.core.retrying.schedule import Schedule
from trimtab.policy.effective import Chooser, Effective, Layer, Origin, forebears, settle
from trimtab.policy.effective import layers as layers_of
from trimtab.policy.model import ServicePolicy
from trimtab.policy.sections import OFF, Balance, Concurrency, Fallback, Hedge, Limit, Outlier, Retry, Split, Timeout

T = TypeVar("T")

_STATEFUL = ("fault", "limit", "throttle", "concurrency", "breaker", "retry", "hedge", "fallback", "mirror")
_NO_TIMEOUT = Timeout()
_METHODS = 1024  # of a service are few; whoever makes them up must not fill the memory
_READY = 64  # methods that find their pipeline ready after a change
_NO_HEADERS: Mapping[str, str] = {}


class Release(NamedTuple):
    """A policy document, and the store revision of its last change."""

    policy: ServicePolicy
    revision: int


@dataclass(frozen=True, slots=True)
class Caller:
    """What rules need to know of the process that calls.

    ``algorithm``: the balancing that it wants where no policy says any. ``changed``: called, with the service's lock held, after
    every transition of a circuit; ``happened``, likewise, with everything that is worth telling. ``listener``: who is told of
    calls.
    """

    name: str
    zone: str
    client_id: str
    algorithm: str
    changed: Callable[[], None]
    happened: Callable[[Event], None] | None = None
    listener: Listener | None = None


class Rules:
    """All pipelines of one service under one pair of policies. ``before``: the rules that these ones replace.

    They are made without the lock, while calls go by those before, and only ``take_effect`` under it. What calls asked for
    before is ready then; the rest is made for the first call that needs it. Raises MissingExtra when a policy asks for what
    cannot be done here.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        caller: Caller,
        sequence: Iterator[int],
        state: ServiceState,
        now: float,
        *,
        service: Release | None = None,
        namespace: Release | None = None,
        before: Rules | None = None,
    ) -> None:
        self.service, self.namespace = service, namespace
        self.revision = max((release.revision for release in (service, namespace) if release is not None), default=0)
        self._surroundings = surroundings
        self._caller = caller
        self._sequence = sequence
        self._state = state
        # Looked up only: calls that go by it may still add to it.
        self._before = before._parts if before is not None else {}
        self._places_before = before._places if before is not None else {}
        self._parts: dict[tuple[Hashable, ...], Any] = {}
        self._places: dict[tuple[str, Origin], Any] = {}
        # What goes on under other settings, or is of an older state, does so when these rules take effect, and not before.
        self._in_effect = before is None
        self._changes: list[Callable[[float], None]] = []
        self._retired = False
        self._layers = layers_of(
            service.policy if service is not None else None, namespace.policy if namespace is not None else None
        )
        self._forebears = forebears(self._layers, before._layers if before is not None else ())
        # Whether all that calls ever asked for is composed below. Then nothing is left aside, which would be kept with its
        # endpoints of long ago.
        self._whole: bool = before is None or (
            before._whole and not before.needs_request and len(before.by_method) <= _READY
        )
        self._aside = self._left_aside(before) if before is not None and not self._whole else {}
        self._chooser = Chooser(self._layers, caller.name)
        self._pipelines: dict[tuple[int, ...], Pipeline] = {}
        self.by_method: dict[str, Pipeline] = {}
        # What a layer says is taken over, and found to be possible, whether or not a call comes soon that it holds for.
        for layer in self._layers:
            self._adopt(layer)
        for method in tuple(before.by_method)[:_READY] if before is not None else ("",):
            self.pipeline(method, now)

    def pipeline(self, method: str, now: float, path: str = "", headers: Mapping[str, str] = _NO_HEADERS) -> Pipeline:
        """The pipeline for a call. Where only methods matter, it is in ``by_method`` from the first time on."""
        chosen = self._chooser.choose(method, path, headers)
        pipeline = self._pipelines.get(chosen)
        if pipeline is None:
            pipeline = self._pipelines[chosen] = self._build(settle(self._layers[index] for index in chosen), now)
            pipeline.retired = self._retired
        if not self.needs_request:
            if len(self.by_method) >= _METHODS:
                self.by_method.clear()
            self.by_method[method] = pipeline
        return pipeline

    @property
    def needs_request(self) -> bool:
        """Path or headers of a call matter for which pipeline it gets."""
        return self._chooser.needs_path or self._chooser.needs_headers

    def take_effect(self, state: ServiceState, now: float) -> None:
        """From now on these are the rules."""
        for change in self._changes:
            change(now)
        self._changes.clear()
        self._in_effect = True
        if state is not self._state:
            self.update(state, now)

    def retire(self) -> None:
        """These are the rules no longer: who keeps a pipeline from call to call is to ask for another. With the lock held."""
        self._retired = True
        for pipeline in self._pipelines.values():
            pipeline.retired = True

    def update(self, state: ServiceState, now: float) -> None:
        """The endpoints of the service changed."""
        self._state = state
        for part in self._parts.values():
            if isinstance(part, Balancer):
                part.update(state, now)
            elif isinstance(part, Circuits):
                part.retain(state.endpoints)

    @property
    def circuits(self) -> list[Circuits]:
        """All circuits that there are. With the lock held, as a call may add some."""
        return [part for part in self._parts.values() if isinstance(part, Circuits)]

    @property
    def bulkheads(self) -> dict[Origin, Bulkhead]:
        """What limits concurrency, by the place in the documents that says so. Likewise."""
        return {
            origin: part.bulkhead for (_, origin), part in self._places.items() if isinstance(part, ConcurrencyGate)
        }

    @property
    def ejected(self) -> frozenset[str]:
        """Ids of the endpoints that outlier detection keeps out of some pipeline. Likewise."""
        return frozenset[str]().union(*(part.ejected for part in self._parts.values() if isinstance(part, Balancer)))

    # Composing

    def _adopt(self, layer: Layer) -> None:
        sections = layer.sections
        for name in _STATEFUL:
            value = getattr(sections, name)
            if value is not None and value is not OFF:
                self._part(name, Effective(value, layer.origin))
        # A picker that cannot be made is found out now, and not with the first call that needs it.
        balance, split = sections.balance, sections.split
        require(balance if isinstance(balance, Balance) else Balance(), split if isinstance(split, Split) else None)

    def _build(self, said: Mapping[str, Effective], now: float) -> Pipeline:
        surroundings = self._surroundings
        gates: list[Gate] = []
        learners: list[Learner] = []
        faults = self._part("fault", said["fault"])
        if faults is not None and said["fault"].value.delay is not None:
            gates.append(FaultDelay(faults))
        if (limiter := self._part("limit", said["limit"])) is not None:
            gates.append(limiter)
        if (throttle := self._part("throttle", said["throttle"])) is not None:
            gates.append(throttle)
            learners.append(throttle)
        if (bulkhead := self._part("concurrency", said["concurrency"])) is not None:
            gates.append(bulkhead)
        balancer = self._balancer(said, now)
        limit = said["limit"].value
        documented = frozenset(name for name, section in said.items() if section.origin.document != "built-in")
        hedge: Hedge | None = said["hedge"].value
        listener = self._listener(balancer)
        # Where nobody listens there is nothing in it that asks whether somebody does.
        kind = Pipeline if listener is None else ObservedPipeline
        return kind(
            surroundings,
            revision=self.revision,
            balancer=balancer,
            timeout=said["timeout"].value or _NO_TIMEOUT,
            # Said by a document: what is built in must not hide the priority of the call that is being served.
            priority=said["priority"].value if "priority" in documented else "",
            retrying=self._retrying(said["retry"], said["hedge"]),
            gates=tuple(gates),
            learners=tuple(learners),
            circuits=self._part("breaker", said["breaker"]),
            faults=faults,
            fallbacks=self._part("fallback", said["fallback"]),
            mirroring=self._part("mirror", said["mirror"]),
            hedged=Hedged(hedge) if hedge is not None else None,
            listener=listener,
            keyed=balancer.keyed or (limit is not None and limit.per == "key"),
            documented=documented,
        )

    def _listener(self, balancer: Balancer) -> Listener | None:
        """Who is told of calls; None: nobody."""
        hooks, loads = self._caller.listener, balancer.loads
        return hooks if loads is None else LoadListener(loads, self._surroundings.lock, hooks)

    def _retrying(self, said: Effective, hedge: Effective) -> Retrying:
        retry = said.value
        if retry is None:
            # Copies are taken from the budget of retries, also where these are off.
            return Retrying(Retryable(None), budget=self._part("hedge", hedge))
        budget = self._part("retry", said)
        return Retrying(Retryable(retry), retry.attempts, Schedule(retry), budget)

    def _balancer(self, said: Mapping[str, Effective], now: float) -> Balancer:
        balance: Balance = said["balance"].value or Balance()
        if said["balance"].origin.document == "built-in":
            balance = Balance(algorithm=self._caller.algorithm)
        split: Split | None = said["split"].value
        outlier: Outlier | None = said["outlier"].value
        key = ("balancer", balance, split, outlier)
        balancer = self._keep(key, lambda: self._new_balancer(balance, split, outlier, now))
        # One that the rules before had, and these need only now, may have missed what happened since.
        if self._in_effect:
            balancer.update(self._state, now)
        else:
            self._changes.append(partial(balancer.update, self._state))
        return balancer

    def _new_balancer(self, balance: Balance, split: Split | None, outlier: Outlier | None, now: float) -> Balancer:
        """One that goes on from what its forerunner knows, if it has one."""
        balancer = Balancer(
            balance,
            split,
            outlier,
            self._state,
            zone=self._caller.zone,
            client_id=self._caller.client_id,
            rng=self._surroundings.rng,
            sequence=self._sequence,
            now=now,
            changed=partial(_ejected, self._surroundings, self._caller),
        )
        before = self._forerunner(balance, split, outlier)
        if before is not None and self._in_effect:
            balancer.succeed(before, now)
        elif before is not None:
            self._changes.append(partial(balancer.succeed, before))
        return balancer

    def _forerunner(self, balance: Balance, split: Split | None, outlier: Outlier | None) -> Balancer | None:
        """Of the pickers before, the one whose settings have most in common with these, of outliers first."""
        known = chain(self._before.copy().items(), self._aside.items())
        alike = [
            (key[3] == outlier, key[1] == balance, key[2] == split, part) for key, part in known if key[0] == "balancer"
        ]
        return max(alike, key=itemgetter(0, 1, 2))[3] if alike else None

    def _left_aside(self, before: Rules) -> dict[tuple[Hashable, ...], Any]:
        """Pickers that no call has asked for since the rules ``before`` came, of settings that are said all the same."""
        said = {getattr(layer.sections, name) for layer in self._layers for name in ("balance", "split", "outlier")}
        said |= {None, Balance(), Balance(algorithm=self._caller.algorithm)}
        known = chain(before._aside.items(), before._before.items())
        return {key: part for key, part in known if key[0] == "balancer" and said.issuperset(key[1:])}

    def _part(self, section: str, said: Effective) -> Any:
        """What a section of one place stands for, None where it is off: one object, however many pipelines it is in."""
        if said.value is None:
            return None
        make = partial(self._make, section, said.value, said.origin)
        part = self._keep((section, *said), make, (section, said.value, self._forebears.get(said.origin)))
        self._places[section, said.origin] = part
        return part

    def _make(self, section: str, settings: Any, origin: Origin) -> Any:
        rng = self._surroundings.rng
        match section:
            case "fault":
                return Faults(settings, rng)
            case "limit":
                return self._rate(settings, origin)
            case "throttle":
                return ThrottleGate(settings, rng)
            case "concurrency":
                return self._bulkhead(settings, origin)
            case "breaker":
                return Circuits(settings, rng, partial(_changed, self._surroundings, self._caller))
            case "fallback":
                return Fallbacks(self._elsewhere(settings), self._surroundings.lock)
            case "retry":
                return build_budget(settings)
            case "hedge":
                return build_budget(Retry())
            case "mirror":
                return None if self._is_itself(settings.service) else Mirroring(settings, rng, self._surroundings.lock)
        raise AssertionError(f"{section} has no state")

    def _is_itself(self, service: str | None) -> bool:
        """Whether a namespace's policy names the very service that these rules are for."""
        return service == self._surroundings.service.rpartition("/")[2]

    def _elsewhere(self, settings: Fallback) -> Fallback:
        return replace(settings, service=None) if self._is_itself(settings.service) else settings

    def _bulkhead(self, settings: Concurrency, origin: Origin) -> ConcurrencyGate:
        """A limit that an operator moved still counts the calls that are under way, and goes on from what it found."""
        before, rng = self._place_before("concurrency", origin), self._surroundings.rng
        if not isinstance(before, ConcurrencyGate):
            return ConcurrencyGate(settings, rng)
        self._changes.append(lambda now: before.change(settings, rng))
        return before

    def _rate(self, settings: Limit, origin: Origin) -> RateGate | KeyedRateGate:
        """A limit that an operator moved still counts the calls that it let through."""
        before = self._place_before("limit", origin)
        if not isinstance(before, (RateGate, KeyedRateGate)) or not may_go_on(before.settings, settings):
            return RateGate(settings) if settings.per == "service" else KeyedRateGate(settings)
        self._changes.append(lambda now: before.limiter.change(settings, now))
        return RateGate(settings, before) if isinstance(before, RateGate) else KeyedRateGate(settings, before)

    def _place_before(self, section: str, origin: Origin) -> Any:
        """What the section stood for where the layer stood before."""
        before = self._forebears.get(origin)
        return None if before is None else self._places_before.get((section, before))

    def _keep(self, key: tuple[Hashable, ...], make: Callable[[], T], before: tuple[Hashable, ...] | None = None) -> T:
        """The part of a key. ``before``: its key in the rules before, where that was another."""
        if key in self._parts:
            return self._parts[key]  # type: ignore[no-any-return]
        part = self._before.get(before or key)
        if part is None:
            part = self._aside.get(key)
        if part is None:
            part = make()
        self._parts[key] = part
        return part


# Functions, not methods: a part that outlives the rules that made it must not keep them.


def _changed(surroundings: Surroundings, caller: Caller, scope: str, name: str, before: State, after: State) -> None:
    """A circuit changed its state."""
    surroundings.statistics.changed(after.value)
    caller.changed()
    if caller.happened is not None:
        caller.happened(CircuitChanged(surroundings.service, scope, name, before.value, after.value))


def _ejected(surroundings: Surroundings, caller: Caller, out: list[str], back: list[str]) -> None:
    """Endpoints were ejected, and others may be called again."""
    surroundings.statistics.ejections += len(out)
    if caller.happened is not None:
        for id_ in out:
            caller.happened(EndpointEjected(surroundings.service, id_))
        for id_ in back:
            caller.happened(EndpointReturned(surroundings.service, id_))
