"""What clients report of circuits and calls: as of now, without nonsense, and the same through another replica."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trimtab.v1 import mesh_pb2 as pb

from controlplane.rpc import reports
from controlplane.runtime.breakers import BreakerInfo, BreakerState
from controlplane.runtime.reported import ReportFilter
from controlplane.runtime.traffic import Traffic

CHECKOUT = reports.Reporter("n1", "checkout", "shop", "r1")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.sampled_from(["shop/orders", "shop/*", "shop", "", "a/b/c", "Shop/orders"]) | TEXT
DURATIONS = st.builds(
    Duration, seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1)
) | st.builds(Duration, seconds=st.integers(0, 100))


def told(report: pb.BreakerReport, wanted: ReportFilter | None = None, *, elapsed: float = 0.0) -> list[BreakerInfo]:
    return list(reports.breakers([report], wanted or ReportFilter(), CHECKOUT, elapsed=elapsed))


def report(**said: Any) -> pb.BreakerReport:
    defaults: dict[str, Any] = {
        "service": "shop/orders",
        "endpoint": "a",
        "state": pb.BreakerReport.STATE_OPEN,
        "age": Duration(seconds=3),
        "calls": 20,
        "failure_ratio": 0.5,
        "retry_after": Duration(seconds=12),
    }
    return pb.BreakerReport(**(defaults | said))


def test_time_goes_on_after_a_report() -> None:
    [info] = told(report(), elapsed=5.0)
    assert (info.age, info.retry_after) == (8.0, 7.0)
    [overdue] = told(report(), elapsed=100.0)
    assert overdue.retry_after == 0.0


def test_only_an_open_circuit_says_when_to_try_again() -> None:
    [info] = told(report(state=pb.BreakerReport.STATE_HALF_OPEN))
    assert (info.state, info.retry_after) == (BreakerState.HALF_OPEN, None)


@pytest.mark.parametrize(
    ("scope", "endpoint", "method"),
    [
        ({"endpoint": "a"}, "a", ""),
        ({"endpoint": None, "method": "Charge"}, "", "Charge"),
        ({"endpoint": None}, "", ""),
    ],
)
def test_a_circuit_is_of_an_endpoint_a_method_or_the_service(scope: dict[str, Any], endpoint: str, method: str) -> None:
    [info] = told(report(**scope))
    assert (info.endpoint, info.method) == (endpoint, method)


@pytest.mark.parametrize("said", [{"service": "orders"}, {"service": "shop/*"}, {"state": 0}, {"state": 99}])
def test_what_makes_no_sense_here_is_left_out(said: dict[str, Any]) -> None:
    assert told(report(**said)) == []


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (ReportFilter(caller="checkout", namespace="shop", service="orders"), 1),
        (ReportFilter(caller="billing"), 0),
        (ReportFilter(namespace="toys"), 0),
        (ReportFilter(service="stock"), 0),
    ],
)
def test_only_what_is_asked_for_is_told(wanted: ReportFilter, number: int) -> None:
    assert len(told(report(), wanted)) == number


def test_a_circuit_is_the_same_through_another_replica() -> None:
    for said in ({}, {"endpoint": None, "method": "Charge"}, {"state": pb.BreakerReport.STATE_FORCED_OPEN}):
        [info] = told(report(**said), elapsed=1.5)
        [through] = reports.breaker_infos([reports.breaker(info)])
        assert through == info


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        pb.BreakerReport,
        service=NAMES,
        method=TEXT,
        state=st.integers(-(2**31), 2**31 - 1) | st.integers(0, 6),
        age=DURATIONS,
        retry_after=DURATIONS,
        calls=st.integers(0, 2**32 - 1),
        failure_ratio=st.floats(width=32),
        slow_ratio=st.floats(width=32),
    ),
    st.floats(0, 1e6),
)
@example(report(age=Duration(seconds=2**63 - 1), retry_after=Duration(seconds=-(2**63))), 0.0)
def test_whatever_a_client_reports_can_be_shown_and_passed_on(said: pb.BreakerReport, elapsed: float) -> None:
    for info in told(said, elapsed=elapsed):
        assert 0 <= info.failure_ratio <= 1
        assert 0 <= info.slow_ratio <= 1
        assert info.age >= 0
        assert info.retry_after is None or info.retry_after >= 0
        [through] = reports.breaker_infos([reports.breaker(info)])
        assert through._replace(age=info.age, retry_after=info.retry_after) == info


def endpoint(**said: Any) -> pb.EndpointReport:
    defaults: dict[str, Any] = {
        "service": "shop/orders",
        "endpoint": "a",
        "calls": 100,
        "failures": 25,
        "in_flight": 3,
        "latency_mean": Duration(nanos=20_000_000),
    }
    return pb.EndpointReport(**(defaults | said))


def kept(*endpoints: pb.EndpointReport, interval: Duration | None = None) -> reports.Reports:
    told = reports.Reports()
    told.keep(pb.Report(endpoints=endpoints, interval=interval or Duration(seconds=5)), 100.0)
    return told


def traffic(told: reports.Reports, wanted: ReportFilter | None = None, now: float = 100.0) -> list[Traffic]:
    return list(told.traffic(wanted or ReportFilter(), CHECKOUT, now))


def test_calls_are_told_by_the_second_with_their_age() -> None:
    [one] = traffic(kept(endpoint()), now=102.0)
    assert (one.calls, one.failures, one.failure_ratio, one.latency) == (20.0, 5.0, 0.25, pytest.approx(0.02))
    assert (one.in_flight, one.ejecting, one.age) == (3, 0, 2.0)
    assert (one.node, one.caller, one.namespace, one.service, one.endpoint) == ("n1", "checkout", "shop", "orders", "a")


def test_an_endpoint_that_answers_nobody_has_no_latency() -> None:
    [one] = traffic(kept(endpoint(calls=0, failures=0, latency_mean=None)))
    assert (one.calls, one.failure_ratio, one.latency, one.in_flight) == (0.0, 0.0, None, 3)


def test_who_ejects_is_named() -> None:
    [one] = traffic(kept(endpoint(ejected=True)))
    assert (one.ejecting, one.ejected_by) == (1, ("checkout",))
    nameless = reports.Reporter("n1", "", "shop", "r1")
    [one] = kept(endpoint(ejected=True)).traffic(ReportFilter(), nameless, 0.0)
    assert one.ejected_by == ("n1",)


def test_a_report_without_an_interval_leaves_what_is_known_of_endpoints() -> None:
    told = kept(endpoint())
    told.keep(pb.Report(breakers=[report()]), 103.0)
    assert [one.age for one in traffic(told, now=104.0)] == [4.0]
    assert [info.age for info in told.breakers(ReportFilter(), CHECKOUT, 104.0)] == [4.0]


def test_a_report_with_an_interval_is_the_whole_picture_of_endpoints() -> None:
    told = kept(endpoint(), endpoint(endpoint="b"))
    told.keep(pb.Report(endpoints=[endpoint(endpoint="b")], interval=Duration(seconds=5)), 105.0)
    assert [one.endpoint for one in traffic(told)] == ["b"]
    told.keep(pb.Report(interval=Duration(seconds=5)), 110.0)
    assert traffic(told) == []


def test_of_a_client_that_tells_too_much_the_first_thousand_are_kept() -> None:
    assert len(traffic(kept(*(endpoint(endpoint=f"e{number}") for number in range(1500))))) == 1000


@pytest.mark.parametrize(
    ("said", "interval"),
    [
        ({"service": "orders"}, Duration(seconds=5)),
        ({"service": "shop/*"}, Duration(seconds=5)),
        ({"endpoint": ""}, Duration(seconds=5)),
        ({}, Duration()),
        ({}, Duration(seconds=-5)),
    ],
)
def test_calls_that_make_no_sense_are_left_out(said: dict[str, Any], interval: Duration) -> None:
    assert traffic(kept(endpoint(**said), interval=interval)) == []


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (ReportFilter(caller="checkout", namespace="shop", service="orders"), 1),
        (ReportFilter(caller="billing"), 0),
        (ReportFilter(namespace="toys"), 0),
        (ReportFilter(service="stock"), 0),
    ],
)
def test_only_calls_that_are_asked_for_are_told(wanted: ReportFilter, number: int) -> None:
    assert len(traffic(kept(endpoint()), wanted)) == number


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        pb.EndpointReport,
        service=NAMES,
        endpoint=TEXT,
        calls=st.integers(0, 2**64 - 1),
        failures=st.integers(0, 2**64 - 1),
        in_flight=st.integers(0, 2**32 - 1),
        latency_mean=DURATIONS,
        ejected=st.booleans(),
    ),
    DURATIONS,
)
@example(endpoint(calls=2**64 - 1, failures=2**64 - 1, latency_mean=Duration(seconds=2**63 - 1)), Duration(nanos=1))
def test_whatever_a_client_reports_of_calls_can_be_shown_and_passed_on(
    said: pb.EndpointReport, interval: Duration
) -> None:
    for one in traffic(kept(said, interval=interval), now=101.0):
        assert 0 <= one.failure_ratio <= 1
        assert one.latency is None or one.latency >= 0
        [through] = reports.traffic_infos([reports.traffic(one)])
        assert through._replace(seconds=one.seconds) == one
        assert (through.latency is None) == (one.latency is None)
        assert (through.latency or 0.0) == pytest.approx(one.latency or 0.0, rel=1e-9, abs=1e-9)
