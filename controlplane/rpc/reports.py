"""What clients report of those that they call, between the wire and the listings.

A report stays the message that it came as until somebody asks: thousands arrive for each one that is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

from google.protobuf.duration_pb2 import Duration
from trimtab.v1 import admin_pb2, mesh_pb2

from controlplane.core.validation import is_name
from controlplane.rpc.convert import duration
from controlplane.runtime.breakers import BreakerInfo, BreakerState
from controlplane.runtime.reported import ReportFilter
from controlplane.runtime.traffic import MAX_NAMED, Traffic

MAX_KEPT = 1000  # breakers, and endpoints, of one client
_MAX_TEXT = 256
_MAX_NAME = 64  # of a program, where several are named
_LONGEST = 1e9  # seconds, 31 years: more than any report means
_STATES = {int(state): state for state in BreakerState}
_NOTHING = mesh_pb2.Report()


@dataclass(frozen=True, slots=True)
class Reporter:
    """A client, and the replica that it reports to."""

    node: str
    name: str
    namespace: str
    replica: str


class Reports:
    """What one client reported last, until it reports anew. Times in seconds of one clock."""

    __slots__ = ("_breakers", "_breakers_at", "_traffic", "_traffic_at")

    def __init__(self) -> None:
        self._breakers = self._traffic = _NOTHING
        self._breakers_at = self._traffic_at = 0.0

    def keep(self, report: mesh_pb2.Report, now: float) -> None:
        """It reported this."""
        interval = report.interval if report.HasField("interval") else None
        if len(report.breakers) > MAX_KEPT or len(report.endpoints) > MAX_KEPT:
            report = mesh_pb2.Report(
                breakers=report.breakers[:MAX_KEPT], endpoints=report.endpoints[:MAX_KEPT], interval=interval
            )
        self._breakers, self._breakers_at = report, now
        if interval is not None:
            self._traffic, self._traffic_at = report, now

    def breakers(self, wanted: ReportFilter, client: Reporter, now: float) -> Iterator[BreakerInfo]:
        """Its circuits, as of now."""
        return breakers(self._breakers.breakers, wanted, client, elapsed=now - self._breakers_at)

    def traffic(self, wanted: ReportFilter, client: Reporter, now: float) -> Iterator[Traffic]:
        """Its calls to endpoints, without what makes no sense."""
        interval = _seconds(self._traffic.interval)
        if wanted.caller not in ("", client.name) or not interval:
            return
        age = now - self._traffic_at
        node, caller, caller_namespace, replica = client.node, client.name, client.namespace, client.replica
        ejected_by = ((caller or node)[:_MAX_NAME],)
        for report in self._traffic.endpoints:
            (namespace, service), endpoint = _callee(report.service), report.endpoint
            if not service or not endpoint or not wanted.callee(namespace, service):
                continue
            calls, ejected = report.calls, report.ejected
            yield Traffic(
                node,
                caller,
                caller_namespace,
                replica,
                namespace,
                service,
                endpoint[:_MAX_TEXT],
                callers=1,
                calls=calls / interval,
                failures=min(report.failures, calls) / interval,
                seconds=calls * _seconds(report.latency_mean) / interval if calls else 0.0,
                in_flight=report.in_flight,
                ejecting=int(ejected),
                ejected_by=ejected_by if ejected else (),
                age=age,
            )


def breakers(
    reported: Iterable[mesh_pb2.BreakerReport], wanted: ReportFilter, client: Reporter, *, elapsed: float
) -> Iterator[BreakerInfo]:
    """What a client reported ``elapsed`` seconds ago, as of now, without what makes no sense here (a newer client's state)."""
    if wanted.caller not in ("", client.name):
        return
    for report in reported:
        namespace, service = _callee(report.service)
        state = _STATES.get(report.state)
        if state is None or not service or not wanted.callee(namespace, service):
            continue
        waits = state is BreakerState.OPEN and report.HasField("retry_after")
        yield BreakerInfo(
            node=client.node,
            caller=client.name,
            caller_namespace=client.namespace,
            replica=client.replica,
            namespace=namespace,
            service=service,
            endpoint=report.endpoint[:_MAX_TEXT],
            method=report.method[:_MAX_TEXT],
            state=state,
            age=_seconds(report.age) + elapsed,
            calls=report.calls,
            failure_ratio=_ratio(report.failure_ratio),
            slow_ratio=_ratio(report.slow_ratio),
            retry_after=max(0.0, _seconds(report.retry_after) - elapsed) if waits else None,
        )


def breaker(info: BreakerInfo) -> admin_pb2.Breaker:
    """A circuit, for another replica or an operator."""
    report = mesh_pb2.BreakerReport(
        service=f"{info.namespace}/{info.service}",
        state=int(info.state),  # type: ignore[arg-type]
        age=duration(info.age),
        calls=info.calls,
        failure_ratio=info.failure_ratio,
        slow_ratio=info.slow_ratio,
    )
    if info.endpoint:
        report.endpoint = info.endpoint
    elif info.method:
        report.method = info.method
    if info.retry_after is not None:
        report.retry_after.CopyFrom(duration(info.retry_after))
    return admin_pb2.Breaker(
        node=info.node,
        caller=info.caller,
        caller_namespace=info.caller_namespace,
        replica=info.replica,
        report=report,
    )


def breaker_infos(messages: Iterable[admin_pb2.Breaker]) -> Iterator[BreakerInfo]:
    """Circuits, as another replica tells them."""
    for message in messages:
        client = Reporter(message.node, message.caller, message.caller_namespace, message.replica)
        yield from breakers([message.report], ReportFilter(), client, elapsed=0.0)


def traffic(one: Traffic) -> admin_pb2.Traffic:
    """Calls to an endpoint, for another replica or an operator."""
    return admin_pb2.Traffic(
        node=one.node,
        caller=one.caller,
        caller_namespace=one.caller_namespace,
        replica=one.replica,
        service=f"{one.namespace}/{one.service}",
        endpoint=one.endpoint,
        callers=one.callers,
        calls_per_second=one.calls,
        failures_per_second=one.failures,
        in_flight=one.in_flight,
        latency_mean=None if one.latency is None else duration(one.latency),
        ejecting=one.ejecting,
        ejected_by=one.ejected_by,
        age=duration(one.age),
    )


def traffic_infos(messages: Iterable[admin_pb2.Traffic]) -> Iterator[Traffic]:
    """Calls to endpoints, as another replica tells them."""
    for message in messages:
        namespace, service = _callee(message.service)
        if service:
            yield Traffic(
                node=message.node,
                caller=message.caller,
                caller_namespace=message.caller_namespace,
                replica=message.replica,
                namespace=namespace,
                service=service,
                endpoint=message.endpoint,
                callers=message.callers,
                calls=message.calls_per_second,
                failures=message.failures_per_second,
                seconds=message.calls_per_second * _seconds(message.latency_mean),
                in_flight=message.in_flight,
                ejecting=message.ejecting,
                ejected_by=tuple(message.ejected_by[:MAX_NAMED]),
                age=_seconds(message.age),
            )


@lru_cache(4096)  # the same few, again and again
def _callee(name: str) -> tuple[str, str]:
    """Namespace and service; empty when the name is none."""
    namespace, _, service = name.partition("/")
    return (namespace, service) if is_name(namespace) and is_name(service) else ("", "")


def _seconds(told: Duration) -> float:
    # From the two numbers: the type's own methods refuse what is out of its range.
    return min(_LONGEST, max(0.0, told.seconds + told.nanos / 1e9))


def _ratio(told: float) -> float:
    return min(1.0, max(0.0, told)) if isfinite(told) else 0.0
