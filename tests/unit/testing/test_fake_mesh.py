"""The world around a fake mesh: endpoints, policies, configuration, registrations."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from trimtab import AsyncMesh, ConfigInvalid, Health, MeshClosed, NoEndpoints, ServiceState
from trimtab.calling.context import remaining, within
from trimtab.policy.reading import PolicyInvalid
from trimtab.testing import FakeAsyncMesh, FakeMesh

from tests.support.missing import without_xxhash


def test_it_begins_empty_and_says_so(fake_mesh: FakeMesh) -> None:
    with pytest.raises(NoEndpoints, match="never heard of it"):
        fake_mesh.pick("orders")
    with pytest.raises(NoEndpoints):
        fake_mesh.wait_ready("orders", timeout=0)


def test_endpoints_come_and_go(fake_mesh: FakeMesh) -> None:
    fake_mesh.add("orders", "10.0.0.1:8000", "[::1]:8001", weight=7, zone="b", metadata={"version": "2"})
    first, second = fake_mesh.endpoints("orders")
    assert (first.id, first.target, first.weight, first.zone) == ("10.0.0.1-8000", "10.0.0.1:8000", 7, "b")
    assert second.target == "[::1]:8001"
    assert dict(second.metadata) == {"version": "2"}
    fake_mesh.remove("orders", first.id)
    assert fake_mesh.pick("orders").endpoint.id == second.id
    fake_mesh.remove("orders")
    with pytest.raises(NoEndpoints, match="all its instances are gone"):
        fake_mesh.pick("orders")
    with pytest.raises(KeyError):
        fake_mesh.remove("orders", first.id)


@pytest.mark.parametrize("address", ["10.0.0.1", ":80", "10.0.0.1:http"])
def test_an_address_needs_host_and_port(fake_mesh: FakeMesh, address: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        fake_mesh.add("orders", address)


def test_namespaces_are_kept_apart(fake_mesh: FakeMesh) -> None:
    fake_mesh.add("shop/orders", "10.0.0.1:8000")
    fake_mesh.add("orders", "10.0.0.2:8000", namespace="bank")
    assert fake_mesh.pick("orders", namespace="shop").endpoint.address == "10.0.0.1"
    assert fake_mesh.pick("bank/orders").endpoint.address == "10.0.0.2"
    with pytest.raises(NoEndpoints):
        fake_mesh.pick("orders")


def test_nobody_calls_an_instance_that_is_not_healthy(fake_mesh: FakeMesh) -> None:
    fake_mesh.add("orders", "10.0.0.1:8000", "10.0.0.2:8000")
    fake_mesh.health("orders", "10.0.0.1-8000", "draining")
    assert {fake_mesh.pick("orders").endpoint.address for _ in range(20)} == {"10.0.0.2"}
    fake_mesh.health("orders", "10.0.0.2-8000", "unhealthy")
    with pytest.raises(NoEndpoints, match="1 draining, 1 unhealthy"):
        fake_mesh.pick("orders")
    fake_mesh.health("orders", "10.0.0.1-8000", "healthy")
    assert fake_mesh.pick("orders").endpoint.address == "10.0.0.1"
    with pytest.raises(KeyError):
        fake_mesh.health("orders", "10.0.0.9-8000", "healthy")


def test_watchers_have_been_told_when_a_change_returns(fake_mesh: FakeMesh) -> None:
    seen: list[ServiceState] = []
    with fake_mesh.watch("orders", seen.append):
        fake_mesh.add("orders", "10.0.0.1:8000")
    assert [len(state.endpoints) for state in seen] == [0, 1]


def test_a_policy_is_in_force_with_the_next_call(fake_mesh: FakeMesh) -> None:
    fake_mesh.add("orders", "10.0.0.1:8000")
    assert fake_mesh.pick("orders").call.policy == 0
    fake_mesh.policy("orders", "default: {timeout: 7s}")
    call = fake_mesh.pick("orders").call
    assert call.deadline is not None
    assert call.deadline - call.began == 7
    fake_mesh.policy("orders", None)
    assert fake_mesh.pick("orders").call.policy == 0


def test_a_whole_document_and_the_namespaces_one_hold_as_in_production(fake_mesh: FakeMesh) -> None:
    fake_mesh.add("orders", "10.0.0.1:8000")
    fake_mesh.policy("*", '{"default": {"timeout": "2s"}}')
    call = fake_mesh.pick("orders").call
    assert call.deadline == call.began + 2
    fake_mesh.policy(
        "orders",
        """
        apiVersion: trimtab/v1
        kind: ServicePolicy
        metadata: {name: orders, namespace: default}
        spec: {default: {timeout: 3s}}
        """,
    )
    call = fake_mesh.pick("orders").call
    assert call.deadline == call.began + 3


def test_a_policy_with_mistakes_is_refused_with_the_places_in_what_was_given(fake_mesh: FakeMesh) -> None:
    spec = "default:\n  retri: 3\n  timeout: soon\n"
    with pytest.raises(PolicyInvalid) as caught:
        fake_mesh.policy("orders", spec)
    first, second = caught.value.problems
    assert (first.path, first.line, first.column, first.hint) == ("spec.default.retri", 2, 3, "did you mean retry?")
    assert (second.path, second.line, second.column) == ("spec.default.timeout", 3, 12)


def test_a_document_for_another_service_is_a_mistake(fake_mesh: FakeMesh) -> None:
    head = '"apiVersion": "trimtab/v1", "kind": "ServicePolicy", "metadata": {"name": "stock", "namespace": "default"}'
    document = f'{{{head}, "spec": {{}}}}'
    with pytest.raises(ValueError, match="is for default/stock, not for default/orders"):
        fake_mesh.policy("orders", document)


def test_a_policy_that_cannot_be_applied_here_is_told(fake_mesh: FakeMesh) -> None:
    fake_mesh.add("orders", "10.0.0.1:8000")
    with without_xxhash(), pytest.raises(ValueError, match="cannot be applied"):
        fake_mesh.policy("orders", "default: {balance: {algorithm: ring_hash, hash: {header: x-user}}}")
    assert fake_mesh.pick("orders").call.policy == 0


def test_configuration_changes_while_it_is_read(fake_mesh: FakeMesh) -> None:
    fake_mesh.publish("orders/app.yaml", "discount: 5")
    config = fake_mesh.config("orders/app.yaml", model=dict[str, int])
    seen: list[dict[str, int]] = []
    config.on_change(seen.append)
    fake_mesh.publish("orders/app.yaml", "discount: 7")
    assert seen == [{"discount": 7}]
    fake_mesh.publish("orders/app.yaml", "discount: lots")
    assert config["discount"] == 7
    assert "discount" in config.error
    fake_mesh.publish("default/orders/app.yaml", {"discount": 9})
    assert config["discount"] == 9


def test_configuration_that_was_never_published_is_missing_as_ever(fake_mesh: FakeMesh) -> None:
    assert fake_mesh.config("orders/app.yaml", default={"discount": 0})["discount"] == 0
    with pytest.raises(ConfigInvalid):
        _ = fake_mesh.config("orders/other.yaml").value
    with pytest.raises(ValueError, match="none of"):
        fake_mesh.publish("orders/app.yaml", "x", format="ini")


def test_what_is_registered_can_be_seen_and_called(fake_mesh: FakeMesh) -> None:
    registration = fake_mesh.register("orders", 8000, address="10.0.0.7", metadata={"version": "2"})
    (instance,) = fake_mesh.registered("orders")
    assert (instance.target, instance.health, instance.metadata) == ("10.0.0.7:8000", Health.HEALTHY, {"version": "2"})
    assert fake_mesh.pick("orders").endpoint.id == registration.id == "10.0.0.7-8000"
    registration.drain()
    assert [one.health for one in fake_mesh.registered("orders")] == [Health.DRAINING]
    registration.deregister()
    assert fake_mesh.registered("orders") == []
    assert not registration.registered


def test_closing_takes_away_what_was_registered() -> None:
    with FakeMesh() as mesh:
        mesh.register("orders", 8000)
    assert mesh.registered("orders") == []
    with pytest.raises(MeshClosed):
        mesh.pick("orders")


def test_it_needs_no_thread_no_disk_and_no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIMTAB_NAMESPACE", "elsewhere")
    monkeypatch.setenv("TRIMTAB_SNAPSHOT_DIR", str(tmp_path))
    others = set(threading.enumerate())
    with FakeMesh(zone="b", name="checkout") as mesh:
        mesh.add("orders", "10.0.0.1:8000")
        mesh.subscribe("stock")
        mesh.unsubscribe("stock")
        assert mesh.namespace == "default"
        assert mesh.status().connected
        assert not [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("trimtab")]
    assert not list(tmp_path.iterdir())


def test_deadlines_of_the_call_being_served_are_told_by_its_clock(fake_mesh: FakeMesh) -> None:
    fake_mesh.add("orders", "10.0.0.1:8000")
    with within(3):
        fake_mesh.clock.advance(1)
        assert remaining() == 2
        assert fake_mesh.pick("orders").call.remaining(fake_mesh.clock.now()) == 2


def test_two_meshes_may_share_a_clock() -> None:
    with FakeMesh() as one, FakeMesh(clock=one.clock) as other:
        one.clock.advance(5)
        assert other.clock.now() == one.clock.now()


async def test_the_asynchronous_face_has_the_same_controls(fake_async_mesh: FakeAsyncMesh) -> None:
    mesh: AsyncMesh = fake_async_mesh
    fake_async_mesh.add("orders", "10.0.0.1:8000")
    fake_async_mesh.publish("orders/app.yaml", {"discount": 5})
    await mesh.wait_ready("orders")
    assert [endpoint.target for endpoint in await mesh.endpoints("orders")] == ["10.0.0.1:8000"]
    assert (await mesh.pick("orders")).endpoint.target == "10.0.0.1:8000"
    assert (await mesh.config("orders/app.yaml"))["discount"] == 5
    registration = await mesh.register("stock", 8000)
    assert [one.id for one in fake_async_mesh.registered("stock")] == [registration.id]
    assert fake_async_mesh.sync.registered("stock") == fake_async_mesh.registered("stock")
    async for state in mesh.watch("orders"):
        assert list(state.endpoints) == ["10.0.0.1-8000"]
        break


async def test_an_asynchronous_mesh_can_be_made_by_hand() -> None:
    async with FakeAsyncMesh(namespace="shop") as mesh:
        mesh.add("orders", "10.0.0.1:8000")
        assert (await mesh.pick("shop/orders")).endpoint.target == "10.0.0.1:8000"
    assert mesh.closed
