"""What is shown of each kind of resource, as columns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Item = Mapping[str, Any]

COLOURS = {
    "HEALTHY": "green", "SYNCED": "green", "DRAINING": "yellow", "SUSPECT": "yellow", "STALE": "yellow",
    "UNHEALTHY": "red", "NACK": "red", "GONE": "red", "PROTECTED": "yellow",
    "OPEN": "red", "FORCED_OPEN": "red", "HALF_OPEN": "yellow", "DISABLED": "yellow", "CLOSED": "green",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``wide`` ones are shown with ``-o wide`` only. ``room``: characters that a later row may need."""

    title: str
    cell: Callable[[Item], object]
    wide: bool = False
    room: int = 0


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of resource is shown. ``name`` is what other commands take; ``state`` is the column that a removal fills."""

    plural: str
    name: Callable[[Item], str]
    columns: Sequence[Column]
    state: str

    def shown(self, *, wide: bool) -> list[Column]:
        """The columns of this width."""
        return [column for column in self.columns if wide or not column.wide]


def _pairs(metadata: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(metadata.items()))


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _age(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"


def _intent(item: Item) -> str:
    wanted = item["desired"]
    if wanted is None:
        return ""
    parts = ["drain"] if wanted["drain"] else []
    return ",".join([*parts, *([f"weight={wanted['weight']}"] if wanted["weight"] is not None else [])])


SERVICES = Kind(
    "services",
    lambda item: str(item["service"]),
    (
        Column("NAMESPACE", lambda item: item["namespace"], wide=True),
        Column("SERVICE", lambda item: item["service"]),
        Column("INSTANCES", lambda item: item["instances"]),
        Column("HEALTHY", lambda item: item["healthy"]),
        Column("DRAINING", lambda item: item["draining"]),
        Column("UNHEALTHY", lambda item: item["unhealthy"]),
        Column("SUSPECT", lambda item: item["suspect"]),
        Column("GUARD", lambda item: "PROTECTED" if item["protected"] else "-", room=len("PROTECTED")),
        Column("REVISION", lambda item: item["revision"], wide=True),
    ),
    "GUARD",
)

INSTANCES = Kind(
    "instances",
    lambda item: f"{item['service']}/{item['id']}",
    (
        Column("NAMESPACE", lambda item: item["namespace"], wide=True),
        Column("SERVICE", lambda item: item["service"]),
        Column("ID", lambda item: item["id"]),
        Column("ADDRESS", lambda item: _dialled(item["reported"])),
        Column("HEALTH", lambda item: item["health"]["value"], room=len("UNHEALTHY")),
        Column("WEIGHT", lambda item: item["weight"]["value"]),
        Column("ZONE", lambda item: item["reported"]["zone"]),
        Column("INTENT", _intent, room=len("drain")),
        Column("REPORTS", lambda item: item["reported"]["state"], wide=True, room=len("UNHEALTHY")),
        Column("OWN WEIGHT", lambda item: item["reported"]["weight"], wide=True),
        Column("REVISION", lambda item: item["revision"], wide=True),
        Column("METADATA", lambda item: _pairs(item["reported"]["metadata"]), wide=True),
        Column("WHY", lambda item: item["health"]["why"], wide=True),
    ),
    "HEALTH",
)

CLIENTS = Kind(
    "clients",
    lambda item: str(item["node"]),
    (
        Column("NODE", lambda item: item["node"]),
        Column("PROGRAM", lambda item: item["program"]),
        Column("NAMESPACE", lambda item: item["namespace"]),
        Column("STATE", lambda item: item["state"], room=len("SYNCED")),
        Column("REVISION", lambda item: item["acknowledged"]),
        Column("FOLLOWS", lambda item: item["subscriptions"]),
        Column("REPLICA", lambda item: item["replica"]),
        Column("HEARD", lambda item: _age(item["heartbeat_age"])),
        Column("SDK", lambda item: item["sdk"], wide=True),
        Column("HOST", lambda item: item["host"], wide=True),
        Column("PID", lambda item: item["pid"], wide=True),
        Column("ZONE", lambda item: item["zone"], wide=True),
        Column("PEER", lambda item: item["peer"], wide=True),
        Column("SESSION", lambda item: item["session"], wide=True),
        Column("CPU", lambda item: _share(item["load"]["cpu"]), wide=True),
        Column("MEMORY", lambda item: _share(item["load"]["memory"]), wide=True),
        Column("SERVING", lambda item: item["load"]["serving"], wide=True),
        Column("CALLING", lambda item: item["load"]["calling"], wide=True),
        Column(
            "REFUSED", lambda item: "; ".join(f"{r['resource']}: {r['reason']}" for r in item["refusals"]), wide=True
        ),
    ),
    "STATE",
)

CONFIGS = Kind(
    "configurations",
    lambda item: f"{item['app']}/{item['file']}",
    (
        Column("NAMESPACE", lambda item: item["namespace"], wide=True),
        Column("APP", lambda item: item["app"]),
        Column("FILE", lambda item: item["file"]),
        Column("FORMAT", lambda item: item["format"]),
        Column("BYTES", lambda item: item["size"]),
        Column("REVISION", lambda item: item["revision"]),
        Column("AUTHOR", lambda item: item["author"]),
    ),
    "FORMAT",
)


POLICIES = Kind(
    "policies",
    lambda item: str(item["service"]),
    (
        Column("NAMESPACE", lambda item: item["namespace"], wide=True),
        Column("SERVICE", lambda item: item["service"]),
        Column("SECTIONS", lambda item: ",".join(item["sections"]) or "-"),
        Column("ROUTES", lambda item: item["routes"]),
        Column("REVISION", lambda item: item["revision"]),
        Column("AUTHOR", lambda item: item["author"]),
    ),
    "SECTIONS",
)

BREAKERS = Kind(
    "breakers",
    lambda item: f"{_caller(item)}->{item['namespace']}/{item['service']}",
    (
        Column("CALLER", lambda item: _caller(item)),
        Column("CALLEE", lambda item: f"{item['namespace']}/{item['service']}"),
        Column("SCOPE", lambda item: _scope(item)),
        Column("STATE", lambda item: item["state"], room=len("HALF_OPEN")),
        Column("SINCE", lambda item: _age(max(0.0, time.time() - item["since"])), room=len("3600s")),
        Column("FAILURES", lambda item: _share(item["failure_ratio"]), room=len("100%")),
        Column("RETRY AFTER", lambda item: "-" if item["retry_after"] is None else _age(item["retry_after"])),
        Column("SLOW", lambda item: _share(item["slow_ratio"]), wide=True),
        Column("CALLS", lambda item: item["calls"], wide=True),
        Column("NODE", lambda item: item["node"], wide=True),
        Column("REPLICA", lambda item: item["replica"], wide=True),
    ),
    "STATE",
)

_FARE = (
    Column("CALLEE", lambda item: f"{item['namespace']}/{item['service']}"),
    Column("ENDPOINT", lambda item: item["endpoint"]),
    Column("CALLS/S", lambda item: f"{item['calls_per_second']:.1f}", room=len("10000.0")),
    Column("FAILURES", lambda item: _share(item["failure_ratio"]), room=len("100%")),
    Column("LATENCY", lambda item: _latency(item["latency_mean"]), room=len("100.0ms")),
    Column("IN FLIGHT", lambda item: item["in_flight"]),
)

TRAFFIC = Kind(
    "traffic",
    lambda item: f"{item['service']}/{item['endpoint']}",
    (
        *_FARE,
        Column("CALLERS", lambda item: item["callers"]),
        Column("EJECTED BY", lambda item: _ejecting(item), room=len("EJECTED BY") + 4),
        Column("HEARD", lambda item: _age(item["age"])),
    ),
    "FAILURES",
)

TRAFFIC_BY_CALLER = Kind(
    "traffic",
    lambda item: f"{_caller(item)}->{item['service']}/{item['endpoint']}",
    (
        Column("CALLER", lambda item: _caller(item)),
        *_FARE,
        Column("EJECTED", lambda item: "yes" if item["ejecting"] else "-"),
        Column("HEARD", lambda item: _age(item["age"])),
        Column("NODE", lambda item: item["node"], wide=True),
        Column("REPLICA", lambda item: item["replica"], wide=True),
    ),
    "FAILURES",
)

SECTIONS = Kind(
    "sections",
    lambda item: str(item["section"]),
    (
        Column("SECTION", lambda item: item["section"]),
        Column("VALUE", lambda item: item["brief"]),
        Column("FROM", lambda item: item["document"]),
        Column("PLACE", lambda item: item["place"] or "-"),
        Column("REVISION", lambda item: item["revision"] or "-"),
    ),
    "VALUE",
)


def _caller(item: Item) -> str:
    return str(item["caller"] or item["node"])


def _ejecting(item: Item) -> str:
    """How many keep away, and the names of some of their programs."""
    return f"{item['ejecting']} ({', '.join(item['ejected_by'])})" if item["ejecting"] else "-"


def _latency(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f}ms" if seconds < 1 else _age(seconds)


def _scope(item: Item) -> str:
    return str(item["endpoint"] or item["method"] or "service")


def _dialled(reported: Item) -> str:
    address = reported["address"]
    return f"[{address}]:{reported['port']}" if ":" in address else f"{address}:{reported['port']}"
