"""What a mesh does, for Prometheus: read from what is counted anyway when somebody scrapes, so a call pays nothing.

>>> from prometheus_client import start_http_server
>>> MeshCollector(mesh)
>>> start_http_server(9100)

Labels are bounded by what operators wrote: services, sections of policies, places in documents. Series for single endpoints
have to be asked for, with their number. Durations in seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise ImportError(
        "trimtab.prometheus needs prometheus-client, which is not installed: pip install 'trimtab[prometheus]'"
    ) from error

from trimtab.core.calling.statistics import BOUNDS
from trimtab.core.endpoints import Health, Tally
from trimtab.discovery import Callee
from trimtab.gate import Gate

if TYPE_CHECKING:
    from trimtab.aio import AsyncMesh
    from trimtab.engine import Engine
    from trimtab.mesh import Mesh

OTHER = "other"
_ENDS = [*map(str, BOUNDS), "+Inf"]
_HEALTH = {int(health): health.name.lower() for health in Health}
Families = dict[str, Any]


class Described(NamedTuple):
    """One metric. ``name`` as it is scraped."""

    name: str
    labels: tuple[str, ...]
    documentation: str

    def family(self) -> Metric:
        """It, without any sample."""
        if self.name.endswith("_total"):
            return CounterMetricFamily(self.name, self.documentation, labels=self.labels)
        if self.name.endswith("_duration_seconds"):
            return HistogramMetricFamily(self.name, self.documentation, labels=self.labels)
        return GaugeMetricFamily(self.name, self.documentation, labels=self.labels)


# The table of docs/sdk.md is made of these.
METRICS = (
    Described(
        "trimtab_client_calls_total",
        ("service", "outcome"),
        "Calls that are over. success: also if the caller was told of a mistake; failure: of the callee; cancelled: given up; "
        "refused: not sent.",
    ),
    Described("trimtab_client_attempts_total", ("service",), "Attempts of calls, the first ones included."),
    Described(
        "trimtab_client_call_duration_seconds",
        ("service",),
        "From the beginning of a call to the first of its last answer. Of success and failure.",
    ),
    Described(
        "trimtab_client_refused_total", ("service", "section"), "Calls not sent, by the section that refused them."
    ),
    Described("trimtab_client_fallbacks_total", ("service",), "Calls whose caller got something instead of an answer."),
    Described("trimtab_client_in_flight", ("service",), "Attempts under way."),
    Described("trimtab_client_endpoints", ("service", "health"), "Endpoints that are known."),
    Described("trimtab_client_endpoints_ejected", ("service",), "Endpoints that outlier detection keeps out."),
    Described("trimtab_client_ejections_total", ("service",), "Times that an endpoint was ejected."),
    Described("trimtab_client_circuits", ("service", "scope", "state"), "Circuits, by their state."),
    Described(
        "trimtab_client_circuit_transitions_total", ("service", "state"), "Changes of circuits, by the new state."
    ),
    Described("trimtab_client_concurrency", ("service", "place"), "Calls inside a limit of concurrency."),
    Described("trimtab_client_concurrency_limit", ("service", "place"), "That limit, of an adaptive one as it is now."),
    Described("trimtab_client_policy_revision", ("service",), "Store revision of the policies in force, 0: built in."),
    Described(
        "trimtab_client_endpoint_attempts_total",
        ("service", "endpoint"),
        "Attempts that tell of an endpoint. Asked for.",
    ),
    Described("trimtab_client_endpoint_failures_total", ("service", "endpoint"), "Those that failed. Asked for."),
    Described("trimtab_client_endpoint_in_flight", ("service", "endpoint"), "Attempts under way. Asked for."),
    Described(
        "trimtab_client_endpoint_latency_seconds",
        ("service", "endpoint"),
        "Peak EWMA of latencies, as balancing sees it; of others the highest. Asked for.",
    ),
    Described(
        "trimtab_server_calls_total",
        ("service", "outcome"),
        "Calls that a server section held for: admitted, or by why they were refused.",
    ),
    Described("trimtab_server_waiting", ("service",), "Calls that wait for a place."),
    Described("trimtab_server_concurrency", ("service", "place"), "Calls inside a limit of concurrency."),
    Described("trimtab_server_concurrency_limit", ("service", "place"), "That limit, of an adaptive one as it is now."),
    Described("trimtab_mesh_connected", (), "1 with an open stream to a control plane."),
    Described("trimtab_mesh_connects_total", (), "Streams opened."),
    Described("trimtab_mesh_revision", (), "Store revision up to which everything followed is complete."),
    Described(
        "trimtab_mesh_policy_refused", ("policy",), "1 for a policy whose newest document cannot be applied here."
    ),
    Described("trimtab_mesh_config_version", ("file",), "Release of a configuration file that is in use."),
    Described("trimtab_mesh_config_refused", ("file",), "1 for a file whose newest release cannot be used here."),
)


class MeshCollector(Collector):
    """Everything that one mesh counts. ``registry``: where to register, None: nowhere.

    ``endpoints``: so many endpoints of each service have series of their own, those that are called first; all others
    together are ``other``. 0: no such series at all.
    """

    def __init__(
        self, mesh: Mesh | AsyncMesh, *, endpoints: int = 0, registry: CollectorRegistry | None = REGISTRY
    ) -> None:
        self._engine: Engine = mesh._engine
        self._limit = endpoints
        self._single: dict[str, _Single] = {}
        if registry is not None:
            registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """The names, which do not depend on what is known."""
        for described in METRICS:
            yield described.family()

    def collect(self) -> Iterator[Metric]:
        """As Prometheus wants it."""
        families: Families = {described.name: described.family() for described in METRICS}
        callees = sorted(self._engine.discovery.callees(), key=lambda callee: callee.name)
        for callee in callees:
            _tell_calls(families, callee)
            _tell_endpoints(families, callee)
            _tell_limits(families, callee)
        if self._limit:
            # What is followed no longer has no series.
            self._single = {callee.name: self._single.get(callee.name) or _Single(self._limit) for callee in callees}
            for callee in callees:
                self._single[callee.name].tell(families, callee)
        for gate in self._engine.discovery.gates():
            _tell_gate(families, gate)
        _tell_mesh(families, self._engine)
        yield from families.values()


def _tell_calls(families: Families, callee: Callee) -> None:
    service = callee.name
    with callee.lock:
        counted = callee.statistics.read()
        in_flight = sum(tally.in_flight for tally in callee.state.tallies.values())
    calls = families["trimtab_client_calls_total"]
    calls.add_metric((service, "success"), counted.calls - counted.failures - counted.cancelled)
    calls.add_metric((service, "failure"), counted.failures)
    calls.add_metric((service, "cancelled"), counted.cancelled)
    calls.add_metric((service, "refused"), sum(counted.refused.values()))
    families["trimtab_client_attempts_total"].add_metric((service,), counted.attempts)
    buckets = list(zip(_ENDS, accumulate(counted.latencies), strict=True))
    families["trimtab_client_call_duration_seconds"].add_metric((service,), buckets, counted.seconds)
    for section, count in sorted(counted.refused.items()):
        families["trimtab_client_refused_total"].add_metric((service, section), count)
    families["trimtab_client_fallbacks_total"].add_metric((service,), counted.fallbacks)
    families["trimtab_client_in_flight"].add_metric((service,), in_flight)
    families["trimtab_client_ejections_total"].add_metric((service,), counted.ejections)
    for state, count in sorted(counted.transitions.items()):
        families["trimtab_client_circuit_transitions_total"].add_metric((service, state), count)


def _tell_endpoints(families: Families, callee: Callee) -> None:
    known = callee.state.endpoints
    counts = Counter(_HEALTH.get(endpoint.health, "unknown") for endpoint in known.values())
    for health in _HEALTH.values():
        families["trimtab_client_endpoints"].add_metric((callee.name, health), counts[health])
    with callee.lock:
        ejected = sum(id_ in known for id_ in callee.rules.ejected)
    families["trimtab_client_endpoints_ejected"].add_metric((callee.name,), ejected)


def _tell_limits(families: Families, callee: Callee) -> None:
    service, rules = callee.name, callee.rules
    families["trimtab_client_policy_revision"].add_metric((service,), rules.revision)
    circuits: Counter[tuple[str, str]] = Counter()
    with callee.lock:
        for part in rules.circuits:
            circuits.update((part.scope, breaker.state.value) for breaker in part.breakers.values())
        limits = {str(origin): (bulkhead.in_flight, bulkhead.limit) for origin, bulkhead in rules.bulkheads.items()}
    for (scope, state), count in sorted(circuits.items()):
        families["trimtab_client_circuits"].add_metric((service, scope, state), count)
    for place, (inside, limit) in sorted(limits.items()):
        families["trimtab_client_concurrency"].add_metric((service, place), inside)
        families["trimtab_client_concurrency_limit"].add_metric((service, place), limit)


def _tell_gate(families: Families, gate: Gate) -> None:
    service, counted = gate.name, gate.read()
    calls = families["trimtab_server_calls_total"]
    calls.add_metric((service, "admitted"), counted.admitted)
    for code, count in sorted(counted.refused.items()):
        calls.add_metric((service, code.rpartition(".")[2]), count)
    families["trimtab_server_waiting"].add_metric((service,), counted.waiting)
    for place, (inside, limit) in sorted(counted.places.items()):
        families["trimtab_server_concurrency"].add_metric((service, place), inside)
        families["trimtab_server_concurrency_limit"].add_metric((service, place), limit)


def _tell_mesh(families: Families, engine: Engine) -> None:
    status = engine.status()
    families["trimtab_mesh_connected"].add_metric((), status.connected)
    families["trimtab_mesh_connects_total"].add_metric((), status.connects)
    families["trimtab_mesh_revision"].add_metric((), status.revision)
    for policy in sorted(engine.discovery.refused):
        families["trimtab_mesh_policy_refused"].add_metric((policy,), 1)
    for file in engine.configs.files():
        good = file.good
        families["trimtab_mesh_config_version"].add_metric((file.name,), good.version if good is not None else 0)
        families["trimtab_mesh_config_refused"].add_metric((file.name,), bool(file.error))


class _Single:
    """The endpoints of one service that have series of their own, and what was read of all.

    What is ``other`` only grows, as counters must, though the endpoints behind it come and go.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._named: set[str] = set()
        self._read: dict[str, tuple[int, int]] = {}
        self._totals: dict[str, tuple[int, int]] = {}

    def tell(self, families: Families, callee: Callee) -> None:
        """Add the series of a service."""
        with callee.lock:
            tallies = {id_: _reading(tally) for id_, tally in callee.state.tallies.items()}
        for gone in self._named - tallies.keys():
            self._named.discard(gone)
            self._totals.pop(gone, None)
        in_flight: Counter[str] = Counter()
        latency: dict[str, float] = {}
        for id_, (calls, failures, under_way, cost) in tallies.items():
            if id_ not in self._named and len(self._named) < self._limit and id_ not in self._read:
                self._named.add(id_)
            label = id_ if id_ in self._named else OTHER
            before = self._read.get(id_, (0, 0))
            if calls < before[0]:
                before = (0, 0)  # it went and came back
            total = self._totals.get(label, (0, 0))
            self._totals[label] = (total[0] + calls - before[0], total[1] + failures - before[1])
            in_flight[label] += under_way
            latency[label] = max(latency.get(label, 0.0), cost)
        self._read = {id_: reading[:2] for id_, reading in tallies.items()}
        for label, (calls, failures) in sorted(self._totals.items()):
            labels = (callee.name, label)
            families["trimtab_client_endpoint_attempts_total"].add_metric(labels, calls)
            families["trimtab_client_endpoint_failures_total"].add_metric(labels, failures)
            families["trimtab_client_endpoint_in_flight"].add_metric(labels, in_flight[label])
            families["trimtab_client_endpoint_latency_seconds"].add_metric(labels, latency.get(label, 0.0))


def _reading(tally: Tally) -> tuple[int, int, int, float]:
    return tally.taken_calls + tally.calls, tally.taken_failures + tally.failures, tally.in_flight, tally.cost
