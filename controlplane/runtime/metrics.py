"""What a replica tells Prometheus. One registry per process, handed to whoever measures."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Tally(Collector):
    """A counter for what happens thousands of times a second: a plain number, looked at when it is scraped.

    Prometheus's own takes a lock and a microsecond. Only the event loop's thread may count, by adding to ``value``.
    """

    def __init__(self, name: str, documentation: str, *, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self.value = 0
        registry.register(self)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """As Prometheus wants it."""
        yield CounterMetricFamily(self._name, self._documentation, self.value)


class Distribution(Collector):
    """A histogram in the same spirit. ``bounds`` are the buckets' upper ends, ascending."""

    def __init__(
        self, name: str, documentation: str, *, bounds: tuple[float, ...], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        """Add a sample."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """As Prometheus wants it: buckets count everything below."""
        ends = [*map(str, self._bounds), "+Inf"]
        buckets = list(zip(ends, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets, self._sum)


class Metrics:
    """Every metric by name; times in seconds."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.streams = Gauge("trimtab_streams", "Client streams open on this replica.", registry=registry)
        self.sessions = Gauge("trimtab_sessions", "Sessions owned by this replica.", registry=registry)
        self.subscriptions = Gauge("trimtab_subscriptions", "Resources followed, over all streams.", registry=registry)
        self.revision = Gauge("trimtab_view_revision", "Store revision of this replica's view.", registry=registry)
        self.events = Counter("trimtab_view_events_total", "Store events applied to the view.", registry=registry)
        self.resyncs = Counter(
            "trimtab_view_resyncs_total", "Times the view was listed again.", ["reason"], registry=registry
        )
        self.pushes = Tally("trimtab_pushes_total", "Deltas sent.", registry=registry)
        self.push_bytes = Tally("trimtab_push_bytes_total", "Bytes of deltas sent.", registry=registry)
        self.acknowledged = Distribution(
            "trimtab_change_acknowledged_seconds",
            "From a change reaching this replica to a client's acknowledgement.",
            bounds=_FAST,
            registry=registry,
        )
        self.nacks = Counter("trimtab_nacks_total", "Resources that clients refused.", registry=registry)
        self.heartbeats = Tally("trimtab_heartbeats_total", "Heartbeats heard.", registry=registry)
        self.ended = Counter("trimtab_sessions_ended_total", "Sessions ended.", ["cause"], registry=registry)
        self.protected = Gauge(
            "trimtab_protected_services", "Services under the mass-failure guard.", registry=registry
        )
        self.refused = Counter("trimtab_refusals_total", "Requests refused.", ["code"], registry=registry)
        self.store_failures = Counter(
            "trimtab_store_failures_total", "Store requests that failed.", ["code"], registry=registry
        )
