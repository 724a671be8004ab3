"""Registration without a stream, what operators and replicas ask, health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from trimtab.v1 import admin_pb2
from trimtab.v1 import registry_pb2 as pb
from trimtab.v1 import types_pb2 as types
from trimtab.v1.admin_pb2_grpc import AdminStub
from trimtab.v1.registry_pb2_grpc import RegistryStub

from controlplane.app import ControlPlane
from controlplane.core.change import Change, Write
from controlplane.core.model import Kind, Ref, Replica, ServiceName
from tests.component.rpc.conftest import StartPlane, until
from tests.component.rpc.wire import Wire, endpoints, error_in

ORDERS = ServiceName("default", "orders")
NODE = types.Node(id="cron-1", name="cron")


@pytest.fixture
async def channel(plane: ControlPlane) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(plane.grpc_address) as opened:
        yield opened


@pytest.fixture
def registry(channel: grpc.aio.Channel) -> Any:
    return RegistryStub(channel)  # type: ignore[no-untyped-call]


def orders(id: str = "a", port: int = 8000, **more: Any) -> types.Instance:
    return types.Instance(service="orders", id=id, address="10.0.0.1", port=port, **more)


async def refused(call: Any) -> types.Error:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = error_in(caught.value)
    assert error.code, f"no Error in the trailer of {caught.value}"
    return error


async def test_a_program_without_a_stream_registers_updates_and_leaves(plane: ControlPlane, registry: Any) -> None:
    opened = await registry.OpenSession(pb.OpenSessionRequest(node=NODE, ttl=Duration(seconds=30)))
    assert opened.ttl.seconds == 30
    handle = opened.handle
    assert handle.startswith(opened.id + ".")
    made = await registry.RegisterInstance(pb.RegisterInstanceRequest(handle=handle, instance=orders("")))
    assert made.instance_id == "10.0.0.1-8000"
    assert (await registry.RenewSession(pb.RenewSessionRequest(handle=handle))).ttl.seconds == 30
    drained = orders(made.instance_id, state=types.INSTANCE_STATE_DRAINING)
    updated = await registry.UpdateInstance(pb.UpdateInstanceRequest(handle=handle, instance=drained))
    assert updated.revision > made.revision
    await plane.reconciler.wait_for(updated.revision)
    listing = await registry.ListServices(pb.ListServicesRequest())
    assert list(listing.services) == ["orders"]
    found = await registry.GetEndpoints(pb.GetEndpointsRequest(service="orders"))
    assert found.revision >= updated.revision
    assert [(e.id, e.health) for e in found.resource.endpoints.changed] == [(made.instance_id, types.HEALTH_DRAINING)]
    second = await registry.RegisterInstance(pb.RegisterInstanceRequest(handle=handle, instance=orders("b", 8001)))
    gone = await registry.DeregisterInstance(
        pb.DeregisterInstanceRequest(handle=handle, service="orders", id=second.instance_id)
    )
    await plane.reconciler.wait_for(gone.revision)
    assert {item.instance.id for item in plane.view.instances(ORDERS)} == {made.instance_id}
    await registry.CloseSession(pb.CloseSessionRequest(handle=handle))
    await until(lambda: plane.view.instances(ORDERS) == [])
    await registry.CloseSession(pb.CloseSessionRequest(handle=handle))
    assert (await refused(registry.RenewSession(pb.RenewSessionRequest(handle=handle)))).code == "session.lost"


async def test_refusals_carry_their_code_and_every_place(plane: ControlPlane, registry: Any) -> None:
    error = await refused(registry.OpenSession(pb.OpenSessionRequest()))
    assert (error.code, [violation.path for violation in error.violations]) == ("request.invalid", ["node.id"])
    for seconds in (4, 3601):
        request = pb.OpenSessionRequest(node=NODE, ttl=Duration(seconds=seconds))
        error = await refused(registry.OpenSession(request))
        assert [violation.path for violation in error.violations] == ["ttl"]
    for handle in ("", "nonsense", "ffffffffffffffff.AAAAAAAAAAAAAAAAAAAAAA"):
        error = await refused(registry.RenewSession(pb.RenewSessionRequest(handle=handle)))
        assert error.code == "session.invalid"
    handle = (await registry.OpenSession(pb.OpenSessionRequest(node=NODE))).handle
    error = await refused(
        registry.RegisterInstance(pb.RegisterInstanceRequest(handle=handle, instance=orders("a b", 0)))
    )
    assert {violation.path for violation in error.violations} == {"instance.id", "instance.port"}
    error = await refused(registry.UpdateInstance(pb.UpdateInstanceRequest(handle=handle, instance=orders("none"))))
    assert error.code == "instance.not_found"
    error = await refused(registry.GetEndpoints(pb.GetEndpointsRequest(service="No!")))
    assert error.code == "request.invalid"


async def test_the_public_id_of_a_session_opens_nothing(plane: ControlPlane, registry: Any) -> None:
    opened = await registry.OpenSession(pb.OpenSessionRequest(node=NODE))
    await registry.RegisterInstance(pb.RegisterInstanceRequest(handle=opened.handle, instance=orders("a")))
    forged = f"{opened.id}.AAAAAAAAAAAAAAAAAAAAAA"
    for call in (
        registry.RenewSession(pb.RenewSessionRequest(handle=forged)),
        registry.RegisterInstance(pb.RegisterInstanceRequest(handle=forged, instance=orders("x", 8001))),
        registry.UpdateInstance(pb.UpdateInstanceRequest(handle=forged, instance=orders("a", weight=1))),
        registry.DeregisterInstance(pb.DeregisterInstanceRequest(handle=forged, service="orders", id="a")),
    ):
        assert (await refused(call)).code == "session.lost"
    await registry.CloseSession(pb.CloseSessionRequest(handle=forged))
    assert (await registry.RenewSession(pb.RenewSessionRequest(handle=opened.handle))).ttl.seconds == 30


async def test_a_service_that_nobody_registered_is_no_error(registry: Any) -> None:
    found = await registry.GetEndpoints(pb.GetEndpointsRequest(service="never"))
    assert (found.resource.name, found.resource.WhichOneof("body")) == ("default/never", None)


async def test_operators_see_the_clients_of_all_replicas_and_who_is_silent(start_plane: StartPlane) -> None:
    one, two = await start_plane(), await start_plane()
    ghost = Replica("ghost", "127.0.0.1:1", "127.0.0.1:2", "0", 0.0)

    await one._ledger.commit(Change(write=(Write(Ref(Kind.REPLICA, ("ghost",)), ghost),)))
    await until(lambda: len(one.view.replicas()) == len(two.view.replicas()) == 3)
    async with Wire(one.grpc_address) as first, Wire(two.grpc_address) as second:
        await first.hello("first", follow=(endpoints(),))
        await first.delta()
        await second.hello("second")
        session = await second.enrol("a")
        async with grpc.aio.insecure_channel(one.grpc_address) as channel:
            admin = AdminStub(channel)  # type: ignore[no-untyped-call]
            everywhere = await admin.ListClients(admin_pb2.ListClientsRequest(), timeout=10)
            local = await admin.ListClients(admin_pb2.ListClientsRequest(local=True), timeout=10)
        clients = {client.node.id: client for client in everywhere.clients}
        assert set(clients) == {"first", "second"}
        assert (clients["first"].replica, clients["second"].replica) == (one.replica, two.replica)
        assert (clients["first"].subscriptions, clients["second"].session) == (1, session.id)
        assert clients["second"].node.sdk == "raw/0"
        assert clients["first"].connected_at.seconds > 0
        assert list(everywhere.silent_replicas) == ["ghost"]
        assert [client.node.id for client in local.clients] == ["first"]


async def test_health_tells_when_a_replica_leaves(plane: ControlPlane, channel: grpc.aio.Channel) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    for service in ("", "trimtab.v1.Mesh"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(health_pb2.HealthCheckRequest(service=""))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    async with Wire(plane.grpc_address) as wire:
        await wire.hello()

        stopping = asyncio.create_task(plane.stop())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await asyncio.wait_for(stopping, 20)


async def test_reflection_names_every_service(channel: grpc.aio.Channel) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answer = await call.read()
    names = {service.name for service in answer.list_services_response.service}
    assert {
        "trimtab.v1.Mesh",
        "trimtab.v1.Registry",
        "trimtab.v1.Admin",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    } <= names
    call.cancel()
