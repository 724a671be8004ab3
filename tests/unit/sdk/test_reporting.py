"""What a process tells the control plane of its calls, and when."""

from __future__ import annotations

from trimtab.core.calling.call import Call
from trimtab.core.retrying.conditions import Outcome
from trimtab.reporting import LIMIT, PAUSE, Reporter
from trimtab.v1.mesh_pb2 import BreakerReport, EndpointReport, Report

from tests.unit.sdk.watched import watch
from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at

FAILED = Outcome("503", failed=True)
START = 1_000_000.0


class Shop:
    """Calls to endpoints a and b in turn, and what is reported of them."""

    def __init__(self, policy: str = "default: {outlier: off}") -> None:
        self.mesh = KnownMesh(endpoint_at(1, "a"), endpoint_at(2, "b"), policy=policy)
        self.now = START
        self.reporter = Reporter(self.now)

    def begin(self) -> Call:
        return self.mesh.service.pipeline("GET").begin(self.now, method="GET")

    def call(self, seconds: float, outcome: Outcome | None = None) -> None:
        call = self.begin()
        assert call.pipeline is not None
        if outcome is None:
            call.pipeline.answered(call, self.now + seconds, over=True)
        else:
            call.pipeline.failed(call, outcome, "", self.now + seconds)
            call.pipeline.over(call, self.now + seconds)

    def report(self, after: float = PAUSE, whole: bool = True) -> Report | None:
        self.now += after
        return self.reporter.report([self.mesh.service], whole, self.now)

    def endpoints(self) -> dict[str, EndpointReport]:
        report = self.report()
        assert report is not None
        return {told.endpoint: told for told in report.endpoints}


def test_calls_are_counted_from_the_beginning_and_then_from_the_last_report() -> None:
    shop = Shop()
    for seconds in (0.125, 0.25, 0.375, 0.5):
        shop.call(seconds)
    first = shop.report()
    assert first is not None
    assert first.interval.ToTimedelta().total_seconds() == PAUSE
    assert {
        told.endpoint: (told.calls, told.latency_mean.ToTimedelta().total_seconds()) for told in first.endpoints
    } == {
        "a": (2, 0.25),
        "b": (2, 0.375),
    }
    shop.call(0.1)
    second = shop.report(after=7.0)
    assert second is not None
    assert (second.interval.seconds, [(told.endpoint, told.calls) for told in second.endpoints]) == (7, [("a", 1)])


def test_endpoints_are_told_of_now_and_then_and_with_heartbeats_only() -> None:
    shop = Shop()
    shop.call(0.1)
    assert shop.report(after=PAUSE - 1) is None
    assert shop.report(after=1, whole=False) is None
    assert shop.report(after=0) is not None


def test_calls_that_never_end_are_told_of_and_have_no_latency() -> None:
    shop = Shop()
    shop.begin()
    told = shop.endpoints()["a"]
    assert (told.calls, told.in_flight, told.HasField("latency_mean")) == (0, 1, False)


def test_when_calls_have_ceased_that_is_told_once() -> None:
    shop = Shop()
    assert shop.report() is None
    shop.call(0.1)
    assert len(shop.endpoints()) == 1
    assert shop.endpoints() == {}
    assert shop.report() is None


def test_a_report_of_breakers_between_two_of_endpoints_says_nothing_of_endpoints() -> None:
    shop = Shop("default: {outlier: off, retry: off, breaker: {scope: service, open_when: 1 in a row}}")
    shop.call(0.1, FAILED)
    between = shop.report(after=1.0)
    assert between is not None
    assert [told.state for told in between.breakers] == [BreakerReport.STATE_OPEN]
    assert not between.HasField("interval")
    assert shop.endpoints()["a"].failures == 1


def test_the_worst_come_first_and_no_more_than_the_contract_allows() -> None:
    shop = Shop("default: {retry: off, outlier: {consecutive: 1, max_ejected: 50%}}")
    shop.call(0.1, FAILED)
    for _ in range(4):
        shop.call(0.1)
    report = shop.report()
    assert report is not None
    assert [(told.endpoint, told.ejected, told.failures, told.calls) for told in report.endpoints] == [
        ("a", True, 1, 1),
        ("b", False, 0, 4),
    ]
    # Ejected for as long as it is, whether or not anybody calls it.
    assert [(told.endpoint, told.ejected) for told in shop.endpoints().values()] == [("a", True)]
    tallies = shop.mesh.service.state.tallies
    for number in range(LIMIT + 10):
        tallies[f"e{number}"] = type(tallies["a"])()
        tallies[f"e{number}"].calls = 1
    assert len(shop.endpoints()) == LIMIT


def test_what_calls_add_to_is_read_with_their_lock() -> None:
    """Else a call that has a picker composed while a report is made would end the stream's thread."""
    shop = Shop("default: {breaker: 5 in a row}")
    shop.call(0.1, FAILED)
    rules = watch(shop.mesh.service)
    assert shop.report() is not None
    assert sorted(rules.seen) == ["circuits", "ejected"]
    assert rules.unlocked == []
