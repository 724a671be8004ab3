"""Guarded functions that fall back to another service."""

from __future__ import annotations

import pytest
from trimtab.core.endpoints import Endpoint
from trimtab.errors import CircuitOpen, NoEndpoints
from trimtab.testing import FakeAsyncMesh, FakeMesh

POLICY = "default: {fallback: {service: archive}, retry: off}"


@pytest.fixture
def mesh(fake_mesh: FakeMesh) -> FakeMesh:
    fake_mesh.add("orders", "10.0.0.1:80")
    fake_mesh.add("archive", "10.0.1.1:80")
    fake_mesh.policy("orders", POLICY)
    return fake_mesh


def only_archived(order: int, *, endpoint: Endpoint) -> str:
    if endpoint.address == "10.0.0.1":
        raise ConnectionResetError("orders is away")
    return f"{order} at {endpoint.address}"


def test_a_function_is_run_once_more_with_an_endpoint_of_the_other_service(mesh: FakeMesh) -> None:
    value, call = mesh.guard("orders")(only_archived).traced(42)  # type: ignore[attr-defined]
    assert value == "42 at 10.0.1.1"
    assert call.fallback == "archive"
    assert [attempt.error for attempt in call.attempts] == [""]
    (failed,) = mesh.calls("orders")
    assert failed.attempts[0].error == "orders is away"
    assert mesh.in_flight == (0, 0)


async def test_an_awaited_function_too(fake_async_mesh: FakeAsyncMesh) -> None:
    fake_async_mesh.add("orders", "10.0.0.1:80")
    fake_async_mesh.add("archive", "10.0.1.1:80")
    fake_async_mesh.policy("orders", POLICY)

    @fake_async_mesh.guard("orders")
    async def fetch(order: int, *, endpoint: Endpoint) -> str:
        return only_archived(order, endpoint=endpoint)

    value, call = await fetch.traced(42)  # type: ignore[attr-defined]
    assert (value, call.fallback) == ("42 at 10.0.1.1", "archive")


def test_it_goes_the_way_of_the_other_services_policy(mesh: FakeMesh) -> None:
    mesh.policy("archive", "default: {breaker: {force: open}}")
    with pytest.raises(CircuitOpen) as caught:
        mesh.guard("orders")(only_archived)(42)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_there_is_no_fallback_of_a_fallback(mesh: FakeMesh) -> None:
    mesh.policy("archive", "default: {fallback: {service: orders}, retry: off}")
    mesh.remove("archive")
    with pytest.raises(NoEndpoints):
        mesh.guard("orders")(only_archived)(42)
    assert len(mesh.calls("orders")) == 1


def test_a_function_of_the_programs_own_has_the_last_word(mesh: FakeMesh) -> None:
    mesh.remove("archive")
    guarded = mesh.guard("orders", fallback=lambda order: "none")(only_archived)
    value, call = guarded.traced(42)  # type: ignore[attr-defined]
    assert (value, call.fallback) == ("none", "function")


def test_a_function_that_takes_no_endpoint_gets_the_value_instead(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {fallback: {service: archive, value: 7}, retry: off}")

    def fails() -> int:
        raise ConnectionResetError("away")

    assert mesh.guard("orders")(fails)() == 7
    assert not mesh.calls("archive")


def test_the_namespace_is_that_of_the_service(fake_mesh: FakeMesh) -> None:
    for namespace in ("shop", "default"):
        fake_mesh.add("archive", "10.0.1.1:80" if namespace == "shop" else "10.0.2.1:80", namespace=namespace)
    fake_mesh.add("orders", "10.0.0.1:80", namespace="shop")
    fake_mesh.policy("orders", POLICY, namespace="shop")
    for guarded in (fake_mesh.guard("shop/orders"), fake_mesh.guard("orders", namespace="shop")):
        assert guarded(only_archived)(42) == "42 at 10.0.1.1"


def test_a_namespaces_fallback_is_not_asked_instead_of_itself(mesh: FakeMesh) -> None:
    mesh.policy("orders", None)
    mesh.policy("*", "default: {fallback: {service: orders, value: 7}, retry: off}")
    value, call = mesh.guard("orders")(only_archived).traced(42)  # type: ignore[attr-defined]
    assert (value, call.fallback) == (7, "value")
    assert len(mesh.calls("orders")) == 1
