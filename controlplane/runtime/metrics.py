"""What a replica tells Prometheus. One registry per process, handed to whoever measures."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


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
        self.pushes = Counter("trimtab_pushes_total", "Deltas sent.", registry=registry)
        self.push_bytes = Counter("trimtab_push_bytes_total", "Bytes of deltas sent.", registry=registry)
        self.acknowledged = Histogram(
            "trimtab_change_acknowledged_seconds",
            "From a change reaching this replica to a client's acknowledgement.",
            registry=registry,
            buckets=_FAST,
        )
        self.nacks = Counter("trimtab_nacks_total", "Resources that clients refused.", registry=registry)
        self.heartbeats = Counter("trimtab_heartbeats_total", "Heartbeats heard.", registry=registry)
        self.ended = Counter("trimtab_sessions_ended_total", "Sessions ended.", ["cause"], registry=registry)
        self.protected = Gauge(
            "trimtab_protected_services", "Services under the mass-failure guard.", registry=registry
        )
        self.refused = Counter("trimtab_refusals_total", "Requests refused.", ["code"], registry=registry)
        self.store_failures = Counter(
            "trimtab_store_failures_total", "Store requests that failed.", ["code"], registry=registry
        )
