"""What clients report of circuits: as of now, without nonsense, and the same through another replica."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trimtab.v1 import mesh_pb2 as pb

from controlplane.rpc import reports
from controlplane.runtime.breakers import BreakerFilter, BreakerInfo, BreakerState

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.sampled_from(["shop/orders", "shop/*", "shop", "", "a/b/c", "Shop/orders"]) | TEXT
DURATIONS = st.builds(
    Duration, seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1)
) | st.builds(Duration, seconds=st.integers(0, 100))


def told(report: pb.BreakerReport, wanted: BreakerFilter | None = None, *, elapsed: float = 0.0) -> list[BreakerInfo]:
    found = reports.breakers(
        [report],
        wanted or BreakerFilter(),
        node="n1",
        caller="checkout",
        caller_namespace="shop",
        replica="r1",
        elapsed=elapsed,
    )
    return list(found)


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
        (BreakerFilter(caller="checkout", namespace="shop", service="orders"), 1),
        (BreakerFilter(caller="billing"), 0),
        (BreakerFilter(namespace="toys"), 0),
        (BreakerFilter(service="stock"), 0),
    ],
)
def test_only_what_is_asked_for_is_told(wanted: BreakerFilter, number: int) -> None:
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
