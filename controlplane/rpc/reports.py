"""What clients report of those that they call, between the wire and the listings.

A report stays the message that it came as until somebody asks: thousands arrive for each one that is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import isfinite

from google.protobuf.duration_pb2 import Duration
from trimtab.v1 import admin_pb2, mesh_pb2

from controlplane.core.validation import is_name
from controlplane.rpc.convert import duration
from controlplane.runtime.breakers import BreakerFilter, BreakerInfo, BreakerState

MAX_BREAKERS = 1000
_MAX_TEXT = 256
_LONGEST = 1e9  # seconds, 31 years: more than any report means
_STATES = {int(state): state for state in BreakerState}


def breakers(
    reported: Iterable[mesh_pb2.BreakerReport],
    wanted: BreakerFilter,
    *,
    node: str,
    caller: str,
    caller_namespace: str,
    replica: str,
    elapsed: float,
) -> Iterator[BreakerInfo]:
    """What a client reported ``elapsed`` seconds ago, as of now, without what makes no sense here (a newer client's state)."""
    if wanted.caller not in ("", caller):
        return
    for report in reported:
        namespace, service = _callee(report.service)
        state = _STATES.get(report.state)
        if state is None or not service or not wanted.callee(namespace, service):
            continue
        waits = state is BreakerState.OPEN and report.HasField("retry_after")
        yield BreakerInfo(
            node=node,
            caller=caller,
            caller_namespace=caller_namespace,
            replica=replica,
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
        yield from breakers(
            [message.report],
            BreakerFilter(),
            node=message.node,
            caller=message.caller,
            caller_namespace=message.caller_namespace,
            replica=message.replica,
            elapsed=0.0,
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
