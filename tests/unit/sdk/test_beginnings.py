"""What is counted of calls to a service from when it, or the process, begins."""

from __future__ import annotations

from trimtab.core.calling.rules import Caller
from trimtab.discovery import Callee, Discovery
from trimtab.errors import NoEndpoints
from trimtab.gate import Gate
from trimtab.v1.types_pb2 import Kind, Resource

ORDERS = "default/orders"


def discovery() -> Discovery:
    caller = Caller("tests", "", "tests", "p2c", lambda: None)
    return Discovery(
        lambda name, state, policies: Callee(name, caller, lambda callee: NoEndpoints(callee.name), state, policies),
        Gate,
        lambda name: None,
        lambda policy: None,
    )


def test_calls_to_a_service_that_was_unheard_of_are_counted_where_balancing_and_reports_look() -> None:
    known = discovery()
    orders, _ = known.callee(ORDERS)
    known.apply(Resource(kind=Kind.KIND_ENDPOINTS, name=ORDERS))
    born = Resource(kind=Kind.KIND_ENDPOINTS, name=ORDERS, version=5)
    born.endpoints.full, born.endpoints.total = True, 1
    born.endpoints.changed.add(id="a", address="10.0.0.1", port=80, weight=100, health=1)
    known.apply(born)
    pipeline = orders.pipeline("GET")
    pipeline.begin(pipeline.now(), method="GET")
    assert orders.state.tallies["a"].in_flight == 1
    assert known.calling() == 1


def test_news_that_do_not_fit_leave_everything_as_it_is() -> None:
    known = discovery()
    orders, _ = known.callee(ORDERS)
    part = Resource(kind=Kind.KIND_ENDPOINTS, name=ORDERS, version=5)
    part.endpoints.base, part.endpoints.total = 4, 1
    before = orders.state
    refusal = known.apply(part)
    assert refusal is not None
    assert refusal.resend
    assert orders.state is before


def test_a_forked_child_counts_none_of_its_parents_calls() -> None:
    known = discovery()
    orders, _ = known.callee(ORDERS)
    pipeline = orders.pipeline("GET")
    call = pipeline.begin(pipeline.now(), local=True)
    pipeline.answered(call, pipeline.now(), over=True)
    assert orders.statistics.read().calls == 1
    known.revive()
    assert orders.statistics.read().calls == 0
    pipeline = orders.pipeline("GET")
    call = pipeline.begin(pipeline.now(), local=True)
    pipeline.answered(call, pipeline.now(), over=True)
    assert orders.statistics.read().calls == 1
