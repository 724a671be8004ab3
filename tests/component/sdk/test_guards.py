"""A guarded function keeps from call to call what its calls go through, and never for longer than that holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from trimtab import Mesh, MeshClosed
from trimtab.errors import RateLimited

from tests.component.sdk.conftest import MakeMesh, until
from tests.component.sdk.test_fork import RemoteFake, in_child, remote
from tests.component.sdk.test_policies import ORDERS, policy
from tests.support.fake_mesh import FakeMesh, endpoint

__all__ = ["remote"]  # a fixture

Charge = Callable[[], str]


@pytest.fixture
def orders(mesh: Mesh, server: FakeMesh) -> Mesh:
    server.store.put(ORDERS, endpoint("a"))
    return mesh


def guarded(mesh: Mesh) -> Charge:
    """A function that tells where its call went, called once already."""

    @mesh.guard("orders", method="Charge")
    def charge(*, endpoint: object) -> str:
        return endpoint.id  # type: ignore[attr-defined, no-any-return]

    charge()
    return charge


def test_it_goes_by_a_policy_that_came_between_two_calls(orders: Mesh, server: FakeMesh) -> None:
    charge = guarded(orders)
    for revision in range(2):
        release = server.store.enact(ORDERS, policy(f"default: {{limit: {{rate: 1/h, burst: {1 + revision}}}}}"))
        until(lambda release=release: orders.callee("orders").rules.revision == release)  # type: ignore[misc]
        # What the first limit let through counts for the second.
        assert charge() == "a"
        with pytest.raises(RateLimited):
            charge()
    server.store.enact(ORDERS, None)
    until(lambda: orders.callee("orders").rules.revision == 0)
    assert charge() == charge() == "a"


def test_a_service_that_is_followed_no_longer_is_discovered_again(orders: Mesh, server: FakeMesh) -> None:
    charge = guarded(orders)
    forgotten = orders.callee("orders")
    orders.unsubscribe("orders")
    until(lambda: server.sent("unsubscribe"))
    server.store.put(ORDERS, endpoint("b"))
    server.store.remove(ORDERS, "a")
    assert charge() == "b"
    assert orders.callee("orders") is not forgotten


def test_a_closed_mesh_lets_nobody_call(orders: Mesh) -> None:
    charge = guarded(orders)
    orders.close()
    with pytest.raises(MeshClosed):
        charge()


def test_a_forked_child_calls_by_what_it_knows_itself(remote: RemoteFake, make_mesh: MakeMesh) -> None:
    mesh = make_mesh(remote.address)
    charge = guarded(mesh)
    parents = mesh.callee("orders").statistics

    def work() -> None:
        charge()
        assert parents.read().calls == 1
        assert mesh.callee("orders").statistics.read().calls == 1
        mesh.close()

    in_child(work)
    charge()
    assert parents.read().calls == 2
