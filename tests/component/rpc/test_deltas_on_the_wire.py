"""Contracts 5 and 6: every subscription answered, differences that fit, refusals, and the newest always last."""

from __future__ import annotations

import asyncio

from trimtab.v1 import mesh_pb2 as pb
from trimtab.v1 import types_pb2 as types

from controlplane.app import ControlPlane
from tests.component.rpc.conftest import StartPlane, until
from tests.component.rpc.wire import Wire, config, endpoints
from tests.support.link import Link


async def release(plane: ControlPlane, content: bytes) -> int:
    return await plane.operations.put_config("default", "orders", "app", format="text", content=content, author="me")


async def test_what_does_not_exist_is_answered_and_told_when_it_comes(plane: ControlPlane) -> None:
    async with Wire(plane.grpc_address) as wire:
        await wire.hello(follow=(endpoints(), config()))
        first = await wire.delta()
        assert {(r.kind, r.name, r.WhichOneof("body")) for r in first.resources} == {
            (types.KIND_ENDPOINTS, "default/orders", None),
            (types.KIND_CONFIG, "default/orders/app", None),
        }
        assert all(resource.digest == 0 for resource in first.resources)
        revision = await release(plane, b"hello")
        second = await wire.delta()
        (resource,) = second.resources
        assert (resource.version, resource.config.content) == (revision, b"hello")
        assert resource.digest != 0
        assert second.version >= revision


async def test_a_change_is_sent_as_a_difference_from_what_was_sent_before(plane: ControlPlane) -> None:
    async with Wire(plane.grpc_address) as owner, Wire(plane.grpc_address) as wire:
        await owner.hello("owner")
        for number in range(20):
            await owner.register(f"i{number}", port=8000 + number)
            committed = (await owner.take_until("committed")).committed
        await plane.reconciler.wait_for(committed.revision)
        await wire.hello(follow=(endpoints(),))
        whole = (await wire.delta()).resources[0]
        assert (whole.endpoints.full, whole.endpoints.total, len(whole.endpoints.changed)) == (True, 20, 20)
        await owner.register("i3", port=8003, weight=7)
        raw = await wire.delta()
        told = raw.resources[0]
        assert (told.endpoints.full, told.endpoints.base, told.endpoints.total) == (False, whole.version, 20)
        assert [(e.id, e.weight) for e in told.endpoints.changed] == [("i3", 7)]
        assert raw.ByteSize() < 400
        await owner.send(deregister=pb.Deregister(request_id=99, service="orders", id="i4"))
        gone = (await wire.delta()).resources[0]
        assert (gone.endpoints.base, list(gone.endpoints.removed), gone.endpoints.total) == (told.version, ["i4"], 19)


async def test_a_client_that_is_up_to_date_is_sent_nothing_on_any_replica(start_plane: StartPlane) -> None:
    one, two = await start_plane(), await start_plane()
    async with Wire(one.grpc_address) as owner:
        await owner.hello("owner")
        await owner.enrol("a")
        await until(lambda: len(one.view.services("default")) == len(two.view.services("default")) == 1)
        async with Wire(one.grpc_address) as wire:
            await wire.hello(follow=(endpoints(),))
            held = (await wire.delta()).resources[0]
        for plane in (one, two):
            async with Wire(plane.grpc_address) as wire:
                await wire.hello(follow=(endpoints(version=held.version, digest=held.digest), config()))
                only = await wire.delta()
                assert [resource.name for resource in only.resources] == ["default/orders/app"]
        async with Wire(two.grpc_address) as wire:
            await wire.hello(follow=(endpoints(version=held.version, digest=held.digest),))
            await owner.register("b", port=8001)
            news = (await wire.delta()).resources[0]
            assert (news.endpoints.full, news.endpoints.base) == (False, held.version)
            assert [endpoint.id for endpoint in news.endpoints.changed] == ["b"]


async def test_subscribing_again_replaces_what_the_client_is_believed_to_hold(plane: ControlPlane) -> None:
    await release(plane, b"1")
    async with Wire(plane.grpc_address) as wire:
        await wire.hello(follow=(config(),))
        first = (await wire.delta()).resources[0]
        await wire.send(subscribe=pb.Subscribe(subscriptions=[config()]))
        assert (await wire.delta()).resources[0] == first
        (client,) = plane.clients.local()
        assert client.subscriptions == 1


async def test_what_is_not_followed_any_more_is_not_told(plane: ControlPlane) -> None:
    async with Wire(plane.grpc_address) as wire:
        await wire.hello(follow=(config(), endpoints()))
        await wire.delta()
        name = pb.ResourceName(kind=types.KIND_CONFIG, name="default/orders/app")
        await wire.send(unsubscribe=pb.Unsubscribe(names=[name, name]))
        await until(lambda: [client.subscriptions for client in plane.clients.local()] == [1])
        await release(plane, b"unheard")
        await wire.enrol("a")
        assert [resource.name for resource in (await wire.delta()).resources] == ["default/orders"]
    await until(lambda: plane.metrics.registry.get_sample_value("trimtab_subscriptions") == 0)


async def test_a_refusal_is_shown_to_operators_and_cleared_by_the_next_that_is_taken(plane: ControlPlane) -> None:
    await release(plane, b"bad")
    async with Wire(plane.grpc_address) as wire:
        await wire.hello(follow=(config(),))
        delta = await wire.delta(ack=False)
        refusal = pb.Refusal(kind=types.KIND_CONFIG, name="default/orders/app", reason="x" * 2000)
        await wire.send(nack=pb.Nack(nonce=delta.nonce, refusals=[refusal]))
        await until(lambda: bool(plane.clients.local()[0].nacks))
        ((name, reason),) = plane.clients.local()[0].nacks
        assert (name, len(reason)) == ("config/default/orders/app", 1024)
        # It is not sent again as it was: what comes next is the next release.
        await release(plane, b"good")
        assert (await wire.delta()).resources[0].config.content == b"good"
        await until(lambda: plane.clients.local()[0].nacks == ())


async def test_a_refused_difference_is_followed_by_the_whole(plane: ControlPlane) -> None:
    async with Wire(plane.grpc_address) as owner, Wire(plane.grpc_address) as wire:
        await owner.hello("owner")
        await owner.enrol("a")
        await until(lambda: len(plane.view.services("default")) == 1)
        await wire.hello(follow=(endpoints(),))
        await wire.delta()
        await owner.register("b", port=8001)
        difference = await wire.delta(ack=False)
        assert not difference.resources[0].endpoints.full
        refusal = pb.Refusal(kind=types.KIND_ENDPOINTS, name="default/orders", reason="base", resend=True)
        await wire.send(nack=pb.Nack(nonce=difference.nonce, refusals=[refusal]))
        whole = (await wire.delta()).resources[0]
        assert whole.endpoints.full
        assert {endpoint.id for endpoint in whole.endpoints.changed} == {"a", "b"}


async def test_who_is_behind_is_known_until_the_acknowledgement(plane: ControlPlane) -> None:
    async with Wire(plane.grpc_address) as wire:
        await wire.hello(follow=(config(),))
        await wire.delta()
        await until(lambda: not plane.clients.local()[0].behind)
        revision = await release(plane, b"1")
        delta = await wire.delta(ack=False)
        assert plane.clients.local()[0].behind
        await wire.ack(delta)
        await until(lambda: not plane.clients.local()[0].behind)
        assert plane.clients.local()[0].acked >= revision


async def test_a_slow_client_skips_what_lies_between_and_ends_at_the_newest(plane: ControlPlane) -> None:
    async with Wire(plane.grpc_address) as slow, Wire(plane.grpc_address) as quick:
        for wire in (slow, quick):
            await wire.hello(follow=(config(),))
        await slow.delta()
        received = 0
        for number in range(60):
            await release(plane, bytes([40 + number]) * 300_000)
            received += 1
            await quick.delta()
        contents: list[int] = []
        while not contents or contents[-1] != 99:
            contents.append((await slow.delta()).resources[0].config.content[0])
        assert contents == sorted(set(contents))
        assert len(contents) < 40, "it was spared most of them"
        assert received == 60


async def test_a_client_that_is_ahead_of_its_new_replica_is_never_taken_back(
    start_plane: StartPlane, cable: Link
) -> None:
    ahead, late = await start_plane(), await start_plane(endpoint=cable.endpoint)
    await release(ahead, b"old")
    await until(lambda: late.view.config("default", "orders", "app") is not None)
    cable.mute()
    await release(ahead, b"new")
    async with Wire(ahead.grpc_address) as wire:
        await wire.hello(follow=(config(),))
        held = (await wire.delta()).resources[0]
    async with Wire(late.grpc_address) as wire:
        subscription = pb.Subscription(
            kind=types.KIND_CONFIG, name="default/orders/app", version=held.version, digest=held.digest
        )
        await wire.hello(follow=(subscription, endpoints()))
        assert [resource.name for resource in (await wire.delta()).resources] == ["default/orders"]
        await asyncio.sleep(0.3)
        cable.unmute()
        await release(ahead, b"newest")
        (resource,) = (await wire.delta()).resources
        assert resource.config.content == b"newest"
