"""Policies on their way into a running client: in force at once, refused with the reason, kept on disk."""

from __future__ import annotations

import threading

import pytest
from trimtab import Mesh
from trimtab.core.calling.call import Call
from trimtab.errors import CircuitOpen, NoEndpoints, RateLimited
from trimtab.policy.canonical import encode
from trimtab.policy.reading import read

from tests.component.sdk.conftest import MakeMesh, until
from tests.support.fake_mesh import FakeMesh, endpoint
from tests.support.missing import without_xxhash

ORDERS = "default/orders"


def policy(spec: str, name: str = "orders") -> bytes:
    """A canonical document from what its ``spec`` says."""
    head = f"apiVersion: trimtab/v1\nkind: ServicePolicy\nmetadata: {{name: '{name}', namespace: default}}\nspec:\n"
    return encode(read(head + "\n".join("  " + line for line in spec.strip().splitlines())))


@pytest.fixture
def orders(mesh: Mesh, server: FakeMesh) -> Mesh:
    server.store.put(ORDERS, endpoint("a"), endpoint("b"))
    return mesh


def call(mesh: Mesh, method: str = "Charge") -> Call:
    """One call that goes well."""

    @mesh.guard("orders", method=method)
    def work(*, endpoint: object) -> str:
        return "done"

    traced = work.traced()  # type: ignore[attr-defined]
    return traced.call  # type: ignore[no-any-return]


def test_a_first_call_waits_for_the_policy_that_holds_for_it(orders: Mesh, server: FakeMesh) -> None:
    revision = server.store.enact(ORDERS, policy("default: {limit: {rate: 1/h}}"))
    assert call(orders).policy == revision
    with pytest.raises(RateLimited) as caught:
        call(orders)
    assert 3590 < caught.value.retry_after <= 3600


def test_without_a_policy_what_is_built_in_holds(orders: Mesh) -> None:
    made = call(orders)
    assert made.policy == 0
    assert made.pipeline.attempt_timeout is None
    assert [attempt.error for attempt in made.attempts] == [""]


def test_a_change_is_in_force_with_the_next_call_and_is_acknowledged(orders: Mesh, server: FakeMesh) -> None:
    assert call(orders).deadline is not None
    revision = server.store.enact(ORDERS, policy("default: {timeout: off, limit: {rate: 1/h}}"))
    until(lambda: orders.callee("orders").rules.revision == revision)
    assert call(orders).deadline is None
    with pytest.raises(RateLimited):
        call(orders)
    server.store.enact(ORDERS, None)
    until(lambda: orders.callee("orders").rules.revision == 0)
    assert call(orders).deadline is not None
    until(lambda: len(server.sent("ack")) == 5)


def test_the_namespaces_policy_holds_where_the_services_own_says_nothing(orders: Mesh, server: FakeMesh) -> None:
    server.store.enact("default/*", policy("default: {timeout: 7s, limit: {rate: 5/h, burst: 5}}", "*"))
    server.store.enact(ORDERS, policy("default: {limit: {rate: 1/h, burst: 2}}"))
    made = call(orders)
    assert made.deadline is not None
    assert made.deadline - made.began == pytest.approx(7.0)
    call(orders)
    with pytest.raises(RateLimited):
        call(orders)


def test_a_route_holds_for_its_method_alone(orders: Mesh, server: FakeMesh) -> None:
    server.store.enact(ORDERS, policy("routes: [{match: {method: Charge}, limit: {rate: 1/h}}]"))
    call(orders, "Charge")
    with pytest.raises(RateLimited):
        call(orders, "Charge")
    assert call(orders, "List").refused == ""


def test_a_policy_that_this_client_does_not_understand_is_refused_and_the_last_good_one_stays(
    orders: Mesh, server: FakeMesh
) -> None:
    good = server.store.enact(ORDERS, policy("default: {timeout: 7s}"))
    assert call(orders).policy == good
    server.store.enact(ORDERS, policy("default: {timeout: 7s}").replace(b'"timeout"', b'"teleport"'))
    until(lambda: server.sent("nack"))
    (refusal,) = server.sent("nack")[0].refusals
    assert refusal.name == ORDERS
    assert "teleport" in refusal.reason
    assert not refusal.resend
    assert call(orders).policy == good


def test_a_circuit_stays_as_it_is_when_another_section_changes(orders: Mesh, server: FakeMesh) -> None:
    breaker = "breaker: {scope: service, open_when: 2 in a row}"
    server.store.enact(ORDERS, policy(f"default: {{{breaker}}}"))

    @orders.guard("orders")
    def failing() -> None:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            failing()
    with pytest.raises(CircuitOpen):
        failing()
    revision = server.store.enact(ORDERS, policy(f"default: {{{breaker}, timeout: 2s}}"))
    until(lambda: orders.callee("orders").rules.revision == revision)
    with pytest.raises(CircuitOpen):
        failing()
    revision = server.store.enact(ORDERS, policy("default: {breaker: {scope: service, open_when: 3 in a row}}"))
    until(lambda: orders.callee("orders").rules.revision == revision)
    with pytest.raises(ValueError, match="no"):
        failing()


def test_policies_outlive_the_control_plane_on_disk(make_mesh: MakeMesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    revision = server.store.enact(ORDERS, policy("default: {timeout: 7s}"))
    with make_mesh(server, snapshot=True) as first:
        assert call(first).policy == revision
    server.stop()
    with make_mesh(server, snapshot=True, discovery_timeout=0.2) as second:
        assert call(second).policy == revision


def test_swapping_policies_loses_no_call(orders: Mesh, server: FakeMesh) -> None:
    stop, failures = threading.Event(), []

    @orders.guard("orders")
    def work(*, endpoint: object) -> str:
        return "done"

    def keep_calling() -> None:
        while not stop.is_set():
            try:
                work()
            except Exception as error:
                failures.append(error)

    work()
    callers = [threading.Thread(target=keep_calling) for _ in range(4)]
    for caller in callers:
        caller.start()
    revision = 0
    for number in range(200):
        revision = server.store.enact(
            ORDERS, policy(f"default: {{timeout: {number + 1}s, concurrency: {100 + number}}}")
        )
    # Callers that never wait leave other threads little time.
    until(lambda: orders.callee("orders").rules.revision == revision, timeout=60)
    stop.set()
    for caller in callers:
        caller.join(10)
    assert not failures
    assert orders.in_flight == (0, 0)


def test_a_call_without_endpoints_says_so_whatever_the_policy(mesh: Mesh, server: FakeMesh) -> None:
    server.store.enact(ORDERS, policy("default: {retry: 3}"))
    with pytest.raises(NoEndpoints) as caught:
        call(mesh)
    assert caught.value.__dict__["trimtab"].refused == ""


RING = "default: {balance: {algorithm: ring_hash, hash: {header: x-user}}, limit: {rate: 1/h}}"


def test_a_server_that_begins_to_call_refuses_what_only_its_calls_cannot_do(orders: Mesh, server: FakeMesh) -> None:
    with without_xxhash():
        revision = server.store.enact("default/*", policy(RING, "*"))
        gate = orders.gate("shop")
        until(lambda: gate.policies["default/*"] is not None)
        assert server.sent("nack") == []
        assert [call(orders).policy for _ in range(2)] == [0, 0]
        until(lambda: server.sent("nack"))
        (refusal,) = server.sent("nack")[0].refusals
        assert (refusal.name, "trimtab[hash]" in refusal.reason) == ("default/*", True)
    good = server.store.enact("default/*", policy("default: {timeout: 7s}", "*"))
    until(lambda: call(orders).policy == good)
    assert good > revision


def test_a_saved_policy_that_cannot_be_applied_any_more_keeps_nobody_from_calling(
    make_mesh: MakeMesh, server: FakeMesh
) -> None:
    server.store.put(ORDERS, endpoint("a"))
    server.store.enact("default/*", policy(RING, "*"))
    revision = server.store.enact(ORDERS, policy("default: {timeout: 7s}"))
    with make_mesh(server, snapshot=True) as first:
        assert call(first).policy > 0
    server.stop()
    with make_mesh(server, snapshot=True, discovery_timeout=0.2) as second, without_xxhash():
        assert [call(second).policy for _ in range(2)] == [revision, revision]
