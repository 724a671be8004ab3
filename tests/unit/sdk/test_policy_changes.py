"""What becomes of calls that were let in when an operator moves their limits."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from trimtab.core.calling.balancer import Balancer
from trimtab.core.calling.call import Call
from trimtab.core.calling.rules import Release
from trimtab.core.retrying.conditions import Outcome
from trimtab.discovery import Callee
from trimtab.errors import CircuitOpen, Overloaded, RateLimited
from trimtab.policy.reading import read
from trimtab.testing.clock import FakeClock

from tests.unit.policy.documents import default
from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at

ORDERS = "default/orders"


def prepare(orders: Callee, sections: str, revision: int, routes: str = "[]") -> Callable[[], None]:
    """What puts a policy in force."""
    document = read(default(sections).replace("namespace: shop", "namespace: default") + f"\n  routes: {routes}\n")
    return orders.prepare(ORDERS, Release(document, revision))


def enact(orders: Callee, sections: str, revision: int = 8) -> None:
    prepare(orders, sections, revision)()


def begin(orders: Callee, method: str = "GET") -> Call:
    pipeline = orders.pipeline(method)
    return pipeline.begin(pipeline.now(), method=method)


@pytest.fixture
def orders() -> Callee:
    policy = "default: {limit: {rate: 1/h, burst: 2}, concurrency: 2}"
    return KnownMesh(endpoint_at(1), policy=policy, clock=FakeClock()).service


def test_a_changed_rate_counts_the_calls_that_it_let_through(orders: Callee) -> None:
    begin(orders)
    begin(orders)
    for revision in range(8, 20):
        enact(orders, f"limit: {{rate: {revision}/h, burst: 2}}", revision)
        with pytest.raises(RateLimited):
            begin(orders)
    enact(orders, "limit: {rate: 1/h, burst: 3}")
    begin(orders)
    with pytest.raises(RateLimited):
        begin(orders)


def test_a_changed_rate_for_each_method_counts_those_of_each(orders: Callee) -> None:
    enact(orders, "limit: {rate: 1/h, per: method}")
    begin(orders)
    enact(orders, "limit: {rate: 2/h, per: method}", 9)
    begin(orders, "POST")
    for method in ("GET", "POST"):
        with pytest.raises(RateLimited):
            begin(orders, method)


def test_a_rate_of_another_kind_begins_anew(orders: Callee) -> None:
    enact(orders, "limit: {rate: 1/h}")
    with pytest.raises(RateLimited):
        [begin(orders) for _ in range(3)]
    enact(orders, "limit: {rate: 1/h, per: method}", 9)
    begin(orders)


def test_a_changed_bulkhead_counts_the_calls_that_are_under_way(orders: Callee) -> None:
    first = begin(orders)
    enact(orders, "concurrency: 1")
    with pytest.raises(Overloaded):
        begin(orders)
    assert first.pipeline is not None
    first.pipeline.answered(first, first.pipeline.now(), over=True)
    begin(orders)


def test_an_adaptive_limit_goes_on_from_where_it_stands(orders: Callee) -> None:
    enact(orders, "concurrency: {adaptive: {algorithm: aimd, initial: 1, low: 1, high: 100}}")
    for _ in range(200):
        call = begin(orders)
        orders.pipeline("GET").answered(call, orders.pipeline("GET").now(), over=True)
        orders._clock.sleep(0.2)
    (bulkhead,) = orders.rules.bulkheads.values()
    found = bulkhead.limit
    assert found > 1
    begin(orders)
    enact(orders, "concurrency: {adaptive: {algorithm: aimd, initial: 1, low: 1, high: 50}}", 9)
    (bulkhead,) = orders.rules.bulkheads.values()
    assert (bulkhead.limit, bulkhead.in_flight) == (found, 1)
    enact(orders, "concurrency: {adaptive: {algorithm: vegas, initial: 9, low: 9, high: 50}}", 10)
    (bulkhead,) = orders.rules.bulkheads.values()
    assert (bulkhead.limit, bulkhead.in_flight) == (9, 1)
    enact(orders, "concurrency: 1", 11)
    with pytest.raises(Overloaded):
        begin(orders)


def test_an_adaptive_limit_that_takes_the_place_of_a_fixed_one_begins_as_it_says(orders: Callee) -> None:
    enact(orders, "concurrency: 1000")
    begin(orders)
    enact(orders, "concurrency: {adaptive: {initial: 20}}", 9)
    (bulkhead,) = orders.rules.bulkheads.values()
    assert (bulkhead.limit, bulkhead.in_flight) == (20, 1)


def test_limits_move_when_a_policy_takes_effect_and_not_before(orders: Callee) -> None:
    adopt = prepare(orders, "limit: {rate: 1/s, burst: 9}\nconcurrency: 9", 8)
    begin(orders)
    begin(orders)
    with pytest.raises(RateLimited):
        begin(orders)
    adopt()
    # What was let through in between counts.
    for _ in range(7):
        begin(orders)
    with pytest.raises(RateLimited):
        begin(orders)


def test_what_calls_asked_for_is_ready_when_a_policy_takes_effect(orders: Callee) -> None:
    begin(orders, "Charge")
    adopt = prepare(orders, "timeout: 2s", 8)
    assert "Charge" in orders.rules.by_method
    adopt()
    ready = orders.rules.by_method["Charge"]
    assert ready.revision == 8
    assert orders.pipeline("Charge") is ready


def test_a_policy_is_prepared_while_calls_hold_the_lock_of_the_service(orders: Callee) -> None:
    prepared: list[Callable[[], None]] = []
    with orders.lock:
        thread = threading.Thread(target=lambda: prepared.append(prepare(orders, "timeout: 2s", 8)), daemon=True)
        thread.start()
        thread.join(10)
        assert prepared
    prepared[0]()
    assert orders.rules.revision == 8


def test_a_picker_that_a_change_of_policy_left_aside_knows_who_came_meanwhile(orders: Callee) -> None:
    def split(total: str, revision: int) -> None:
        prepare(orders, f"timeout: {total}", revision, "[{match: {path: /slow}, outlier: {consecutive: 2}}]")()

    def slow() -> Call:
        pipeline = orders.pipeline("GET", "/slow")
        return pipeline.begin(pipeline.now())

    split("1s", 8)
    slow()
    split("2s", 9)
    newcomer = endpoint_at(2, "b")
    orders.swap(replace(orders.state, endpoints={"b": newcomer}, healthy={"b": newcomer}))
    assert slow().endpoint == newcomer


def test_the_first_call_after_a_change_finds_its_picker_made(orders: Callee) -> None:
    enact(orders, "outlier: {consecutive: 3, interval: 1s}")
    balancer = orders.pipeline("GET").balancer
    picker = balancer.picker
    begin(orders)
    assert balancer.picker is picker
    assert balancer.due > orders.pipeline("GET").now()


ROUTES = "{match: {method: Charge}, concurrency: 1, breaker: 1 in a row}"


def test_a_route_that_is_put_before_another_takes_nothing_of_it_over(orders: Callee) -> None:
    prepare(orders, "{}", 8, f"[{ROUTES}]")()
    begin(orders, "Charge")
    prepare(orders, "{}", 9, f"[{{match: {{method: Refund}}, concurrency: 1}}, {ROUTES}]")()
    begin(orders, "Refund")
    with pytest.raises(Overloaded):
        begin(orders, "Charge")


def test_a_circuit_stays_open_when_its_route_gets_another_place(orders: Callee) -> None:
    prepare(orders, "{}", 8, f"[{ROUTES}]")()
    call = begin(orders, "Charge")
    orders.pipeline("Charge").failed(call, Outcome("503", failed=True), "503", call.began, last=True)
    orders.pipeline("Charge").over(call, call.began)
    prepare(orders, "{}", 9, f"[{{match: {{method: Refund}}, timeout: 1s}}, {ROUTES}]")()
    with pytest.raises(CircuitOpen):
        begin(orders, "Charge")


def test_a_limit_is_told_by_the_place_that_its_route_has_now(orders: Callee) -> None:
    prepare(orders, "{}", 8, f"[{ROUTES}]")()
    begin(orders, "Charge")
    prepare(orders, "{}", 9, f"[{{match: {{method: Refund}}, timeout: 1s}}, {ROUTES}]")()
    assert {str(origin): found.in_flight for origin, found in orders.rules.bulkheads.items()} == {
        "default/orders routes[1]": 1
    }


def test_news_of_endpoints_leave_the_circuit_of_calls_without_one_open(orders: Callee) -> None:
    enact(orders, "breaker: {open_when: 1 in a row, open_for: 5s}")
    pipeline = orders.pipeline("GET")
    call = pipeline.begin(pipeline.now(), local=True)
    pipeline.failed(call, Outcome("exception", failed=True), "broken", pipeline.now(), last=True)
    pipeline.over(call, pipeline.now())
    endpoints = {endpoint.id: endpoint for endpoint in (endpoint_at(1), endpoint_at(2))}
    orders.swap(replace(orders.state, version=9, endpoints=endpoints, healthy=endpoints))
    with pytest.raises(CircuitOpen) as caught:
        pipeline.begin(pipeline.now(), local=True)
    assert caught.value.retry_after == 5.0


def test_the_refusal_of_a_call_without_an_endpoint_tells_of_its_own_circuit(orders: Callee) -> None:
    enact(orders, "breaker: {open_when: 1 in a row, open_for: 5s}")
    begin(orders)  # the endpoint has a circuit, which is closed
    pipeline = orders.pipeline("GET")
    call = pipeline.begin(pipeline.now(), local=True)
    pipeline.failed(call, Outcome("exception", failed=True), "broken", pipeline.now(), last=True)
    pipeline.over(call, pipeline.now())
    with pytest.raises(CircuitOpen, match="its circuit is open; try again in 5 s") as caught:
        pipeline.begin(pipeline.now(), local=True)
    assert caught.value.retry_after == 5.0


def test_who_was_ejected_stays_so_when_policies_change_twice_between_two_calls() -> None:
    """Where paths matter, which picker a call needs is known when it comes."""
    orders = KnownMesh(endpoint_at(1, "a"), endpoint_at(2, "b"), clock=FakeClock()).service
    sections = "outlier: {consecutive: 1, max_ejected: 50%}"
    prepare(orders, sections, 8, "[{match: {path: /slow}, timeout: 9s}]")()
    call = begin(orders)
    assert call.endpoint is not None
    call.pipeline.failed(call, Outcome("503", failed=True), "503", call.pipeline.now(), last=True)
    call.pipeline.over(call, call.pipeline.now())
    for revision in (9, 10):
        prepare(orders, sections, revision, f"[{{match: {{path: /slow}}, timeout: {revision}s}}]")()
    begin(orders)
    assert orders.rules.ejected == {call.endpoint.id}


@pytest.mark.parametrize("per", ["service", "method"])
def test_a_limit_that_waits_from_now_on_lets_no_call_of_the_rules_before_wait(orders: Callee, per: str) -> None:
    enact(orders, f"limit: {{rate: 1/s, burst: 1, per: {per}}}", 8)
    before = orders.pipeline("GET")
    begin(orders)
    enact(orders, f"limit: {{rate: 1/s, burst: 1, per: {per}, wait: 10s}}", 9)
    for _ in range(3):
        with pytest.raises(RateLimited):
            before.begin(before.now(), "GET")
    assert begin(orders).wait == pytest.approx(1.0), "those that were refused took no turn"


@pytest.mark.parametrize("after", ["[{0}, {1}]", "[{1}, {0}]", "[{1}]"])
def test_of_two_routes_for_the_same_calls_each_is_known_again_by_what_it_says(orders: Callee, after: str) -> None:
    routes = ("{match: {method: GET}, timeout: 2s}", "{match: {method: GET}, limit: {rate: 1/h, burst: 1}}")
    prepare(orders, "{}", 8, f"[{', '.join(routes)}]")()
    begin(orders)
    prepare(orders, "{}", 9, after.format(*routes))()
    with pytest.raises(RateLimited):
        begin(orders)


def test_changes_of_policy_leave_no_pickers_behind(orders: Callee) -> None:
    def pickers() -> int:
        gc.collect()
        return sum(isinstance(each, Balancer) for each in gc.get_objects())

    first = pickers()
    for seconds in range(10, 15):
        enact(orders, f"balance: {{algorithm: p2c, error_penalty: {seconds}s}}", seconds)
        begin(orders)
        assert pickers() == first + 1, "those in force, and those before"
