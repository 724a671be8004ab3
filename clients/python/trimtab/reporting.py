"""What this process tells the control plane of its calls: endpoints by their calls, circuits by their states."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from google.protobuf.duration_pb2 import Duration

from trimtab.core.breaking.breaker import CircuitBreaker, State
from trimtab.core.calling.circuits import Circuits
from trimtab.discovery import Callee
from trimtab.v1.mesh_pb2 import BreakerReport, EndpointReport, Report

PAUSE = 5.0  # seconds between reports of endpoints
LIMIT = 1000  # entries of each kind

_STATES = {
    State.CLOSED: BreakerReport.STATE_CLOSED,
    State.OPEN: BreakerReport.STATE_OPEN,
    State.HALF_OPEN: BreakerReport.STATE_HALF_OPEN,
    State.FORCED_OPEN: BreakerReport.STATE_FORCED_OPEN,
    State.DISABLED: BreakerReport.STATE_DISABLED,
}


class Reporter:
    """Makes the reports of one process, whose calls count from ``now`` on. One owner: the stream's thread."""

    def __init__(self, now: float) -> None:
        self._counted_from = now
        self._told_of_endpoints = self._told_of_breakers = False

    def report(self, callees: Iterable[Callee], whole: bool, now: float) -> Report | None:
        """Return what there is to tell; None: nothing. ``whole``: of endpoints too, when their time has come."""
        callees = list(callees)
        breakers = [entry for callee in callees for entry in _breakers(callee, now)]
        breakers.sort(
            key=lambda b: (b.state in (BreakerReport.STATE_CLOSED, BreakerReport.STATE_DISABLED), -b.failure_ratio)
        )
        report = Report(breakers=breakers[:LIMIT])
        # What a report leaves out counts as gone, so the last of each kind that went has to be told of once.
        told, self._told_of_breakers = self._told_of_breakers, bool(breakers)
        news = bool(breakers) or told
        if whole and now - self._counted_from >= PAUSE:
            endpoints = [entry for callee in callees for entry in _endpoints(callee)]
            endpoints.sort(key=lambda e: (-e.ejected, -e.failures, -e.in_flight, -e.calls))
            told, self._told_of_endpoints = self._told_of_endpoints, bool(endpoints)
            if endpoints or told:
                report.endpoints.extend(endpoints[:LIMIT])
                report.interval.CopyFrom(_duration(min(now - self._counted_from, 86_400)))
                news = True
            self._counted_from = now
        return report if news else None


def _breakers(callee: Callee, now: float) -> Iterable[BreakerReport]:
    with callee.lock:
        return [
            _breaker(callee.name, circuits, name, breaker, now)
            for circuits in callee.rules.circuits
            for name, breaker in circuits.breakers.items()
        ]


def _breaker(service: str, circuits: Circuits, name: str, breaker: CircuitBreaker, now: float) -> BreakerReport:
    counts = breaker.counts(now)
    report = BreakerReport(service=service, state=_STATES[breaker.state], calls=counts.calls)
    if name:
        setattr(report, circuits.scope, name)  # "endpoint" or "method", as the fields are called
    if counts.calls:
        report.failure_ratio = counts.failed / counts.calls
        report.slow_ratio = counts.slow / counts.calls
    if name in circuits.since:
        report.age.CopyFrom(_duration(now - circuits.since[name]))
    retry_after = breaker.retry_after(now)
    if retry_after and isfinite(retry_after):
        report.retry_after.CopyFrom(_duration(retry_after))
    return report


def _endpoints(callee: Callee) -> Iterable[EndpointReport]:
    with callee.lock:
        ejected = callee.rules.ejected
        taken = {
            id_: (tally.take(), tally.in_flight)
            for id_, tally in callee.state.tallies.items()
            if tally.calls or tally.in_flight > 0
        }
    for id_ in ejected - taken.keys():
        yield EndpointReport(service=callee.name, endpoint=id_, ejected=True)
    for id_, ((calls, failures, seconds), in_flight) in taken.items():
        report = EndpointReport(
            service=callee.name,
            endpoint=id_,
            calls=calls,
            failures=failures,
            in_flight=max(0, in_flight),
            ejected=id_ in ejected,
        )
        if calls:
            report.latency_mean.CopyFrom(_duration(seconds / calls))
        yield report


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(max(0.0, seconds) * 1e9))
    return duration
