"""Contract 1: Hello first and once; Welcome without waiting for the store; refusals that say why."""

from __future__ import annotations

import grpc
import pytest
from trimtab.v1 import mesh_pb2 as pb
from trimtab.v1 import types_pb2 as types

from controlplane import __version__
from controlplane.app import ControlPlane
from tests.component.rpc.conftest import StartPlane
from tests.component.rpc.wire import Wire, config, endpoints
from tests.support.link import Link


async def test_the_first_answer_is_a_welcome_that_tells_the_servers_terms(plane: ControlPlane) -> None:
    async with Wire(plane.grpc_address) as wire:
        welcome = await wire.hello(follow=(endpoints(),))
    assert welcome.replica == plane.replica
    assert welcome.server_version == __version__
    assert welcome.heartbeat_interval.ToTimedelta().total_seconds() == 0.2
    assert welcome.heartbeat_window.ToTimedelta().total_seconds() == 1.5
    assert welcome.grace.ToTimedelta().total_seconds() == 0.3
    assert welcome.max_subscriptions == 10_000


async def test_a_welcome_does_not_wait_for_the_store(start_plane: StartPlane, cable: Link) -> None:
    plane = await start_plane(endpoint=cable.endpoint)
    cable.mute()
    async with Wire(plane.grpc_address) as wire:
        assert (await wire.hello()).replica == plane.replica
    cable.unmute()


async def test_something_else_than_hello_first_is_refused(plane: ControlPlane) -> None:
    async with Wire(plane.grpc_address) as wire:
        await wire.send(heartbeat=pb.Heartbeat())
        code, error = await wire.ended()
    assert (code, error.code) == (grpc.StatusCode.INVALID_ARGUMENT, "stream.protocol")
    assert error.hint == "send Hello first"


async def test_a_second_hello_is_refused(plane: ControlPlane) -> None:
    async with Wire(plane.grpc_address) as wire:
        await wire.hello()
        await wire.send(hello=pb.Hello(node=types.Node(id="again")))
        code, error = await wire.ended()
    assert (code, error.code) == (grpc.StatusCode.INVALID_ARGUMENT, "stream.protocol")


async def test_a_client_that_never_says_hello_is_cut_off(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.rpc.stream._HELLO_DEADLINE", 0.2)
    async with Wire(plane.grpc_address) as wire:
        code, error = await wire.ended()
    assert (code, error.code) == (grpc.StatusCode.INVALID_ARGUMENT, "stream.protocol")


async def test_a_client_that_goes_without_a_word_is_no_failure(plane: ControlPlane) -> None:
    async with Wire(plane.grpc_address) as wire:
        await wire.call.done_writing()
        assert (await wire.ended())[0] is grpc.StatusCode.OK


BAD_NODES = [
    (types.Node(), "node.id"),
    (types.Node(id="x" * 129), "node.id"),
    (types.Node(id="a", namespace="No!"), "node.namespace"),
    (types.Node(id="a", zone="z" * 257), "node.zone"),
    (types.Node(id="a", labels={str(n): "" for n in range(65)}), "node.labels"),
]


async def test_a_client_that_introduces_itself_badly_is_told_where(plane: ControlPlane) -> None:
    for node, path in BAD_NODES:
        async with Wire(plane.grpc_address) as wire:
            await wire.send(hello=pb.Hello(node=node))
            code, error = await wire.ended()
        assert (code, error.code) == (grpc.StatusCode.INVALID_ARGUMENT, "request.invalid")
        assert [violation.path for violation in error.violations] == [path]


NO_RESOURCES = [
    (pb.Subscription(kind=9, name="default/orders"), "kind"),  # type: ignore[arg-type]
    (pb.Subscription(kind=types.KIND_ENDPOINTS, name="orders"), "name"),
    (pb.Subscription(kind=types.KIND_ENDPOINTS, name="default/orders/x"), "name"),
    (pb.Subscription(kind=types.KIND_CONFIG, name="default/orders"), "name"),
    (pb.Subscription(kind=types.KIND_CONFIG, name="default/orders/.."), "name"),
    (pb.Subscription(kind=types.KIND_ENDPOINTS, name="default/Bad"), "name"),
]


async def test_what_is_no_resource_cannot_be_followed(plane: ControlPlane) -> None:
    for subscription, field in NO_RESOURCES:
        async with Wire(plane.grpc_address) as wire:
            await wire.send(hello=pb.Hello(node=types.Node(id="a"), subscriptions=[config(), subscription]))
            code, error = await wire.ended()
        assert (code, error.code) == (grpc.StatusCode.INVALID_ARGUMENT, "request.invalid")
        assert [violation.path for violation in error.violations] == [f"subscriptions[1].{field}"]
    assert plane.metrics.registry.get_sample_value("trimtab_subscriptions") == 0


async def test_a_message_of_a_newer_client_is_ignored(plane: ControlPlane) -> None:
    async with Wire(plane.grpc_address) as wire:
        await wire.hello()
        await wire.call.write(pb.ClientMessage.FromString(b"\xfa\x07\x00"))  # field 127
        await wire.send()
        await wire.enrol()
