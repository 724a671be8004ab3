"""Contracts 7 and 8: GoAway, and what no client may do to the others."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import psutil
import pytest
from prometheus_client import generate_latest
from trimtab.v1 import mesh_pb2 as pb
from trimtab.v1 import types_pb2 as types
from trimtab.v1.mesh_pb2_grpc import MeshStub

from controlplane.app import ControlPlane
from controlplane.core.model import ServiceName
from tests.component.rpc.conftest import StartPlane, until
from tests.component.rpc.test_deltas_on_the_wire import release
from tests.component.rpc.wire import Wire, config, ending

ORDERS = ServiceName("default", "orders")


async def test_a_replica_that_leaves_asks_its_clients_to_move_and_their_sessions_stay(start_plane: StartPlane) -> None:
    old, new = await start_plane(), await start_plane()
    async with Wire(old.grpc_address) as wire, Wire(new.grpc_address) as next_wire:
        await wire.hello()
        session = await wire.enrol("a")
        await until(lambda: len(new.view.instances(ORDERS)) == 1)
        stopping = asyncio.create_task(old.stop())
        away = (await wire.take("go_away")).go_away
        assert away.spread.ToTimedelta().total_seconds() == 1.0
        assert away.deadline.ToTimedelta() >= away.spread.ToTimedelta()
        await next_wire.hello(resume=session.handle)
        assert (await next_wire.take("session")).session.state == pb.Session.STATE_ATTACHED
        await wire.call.done_writing()
        assert (await wire.ended())[0] is grpc.StatusCode.OK
        await asyncio.wait_for(stopping, 10)
        assert len(new.view.instances(ORDERS)) == 1


async def test_a_client_that_stays_is_cut_off_with_the_replica_and_its_session_still_stands(
    start_plane: StartPlane,
) -> None:
    old, new = await start_plane(drain_spread="0", heartbeat_window="30"), await start_plane()
    async with Wire(old.grpc_address) as wire:
        await wire.hello(beat=0)
        session = await wire.enrol("a")
        await asyncio.wait_for(old.stop(), 20)
        code, _ = await wire.ended()
        assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    async with Wire(new.grpc_address) as wire:
        await wire.hello(resume=session.handle)
        assert (await wire.take("session")).session.state == pb.Session.STATE_ATTACHED


async def test_a_flood_ends_the_stream_and_says_why(start_plane: StartPlane) -> None:
    plane = await start_plane(flood_rate="50", flood_burst="100")
    messages = [hello("flooder"), *[pb.ClientMessage(heartbeat=pb.Heartbeat())] * 5000]
    async with Wire(plane.grpc_address) as other:
        await other.hello("other")
        code, error = await asyncio.to_thread(threaded, plane.grpc_address, iter(messages))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (error.code, error.retryable) == ("request.flood", True)
        await other.enrol("a")


def hello(node: str, *follow: pb.Subscription) -> pb.ClientMessage:
    return pb.ClientMessage(hello=pb.Hello(node=types.Node(id=node), subscriptions=follow))


def threaded(
    address: str, messages: Iterator[pb.ClientMessage], reading: threading.Event | None = None
) -> tuple[grpc.StatusCode, types.Error]:
    """A stream over the threaded API, which tells the server's status also when a message could not be sent any more.

    Reads nothing before ``reading`` is set.
    """
    with grpc.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        call: Any = MeshStub(channel).Connect(messages)  # type: ignore[no-untyped-call]
        if reading is not None:
            assert reading.wait(60)
        try:
            for _ in call:
                continue
        except grpc.RpcError:
            trailer = dict(call.trailing_metadata()).get("trimtab-error-bin", b"")
            return call.code(), types.Error.FromString(trailer)
        return call.code(), types.Error()


async def test_more_subscriptions_than_the_limit_end_the_stream(start_plane: StartPlane) -> None:
    plane = await start_plane(max_subscriptions="10")
    many = [config(f"default/orders/f{number}") for number in range(11)]
    async with Wire(plane.grpc_address) as wire:
        await wire.send(hello=pb.Hello(node=types.Node(id="a"), subscriptions=many))
        code, error = await wire.ended()
        assert (code, error.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "stream.too_many_subscriptions")
    async with Wire(plane.grpc_address) as wire:
        assert (await wire.hello(follow=tuple(many[:10]))).max_subscriptions == 10
        await wire.delta()
        await wire.send(subscribe=pb.Subscribe(subscriptions=many[:10]))
        await wire.delta()
        await wire.send(subscribe=pb.Subscribe(subscriptions=many[10:]))
        code, error = await wire.ended()
        assert (code, error.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "stream.too_many_subscriptions")
        assert "11" in error.message
    await until(lambda: plane.metrics.registry.get_sample_value("trimtab_subscriptions") == 0)


async def test_a_message_that_is_too_large_ends_the_stream(plane: ControlPlane) -> None:
    async with Wire(plane.grpc_address) as wire, Wire(plane.grpc_address) as other:
        await other.hello("other")
        await wire.hello()
        metadata = {"k": "v" * (1024 * 1024)}
        await wire.register("a", metadata=metadata)
        code, _ = await wire.ended()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await other.enrol("b")


async def test_a_client_that_never_reads_is_cut_off_and_disturbs_nobody(
    start_plane: StartPlane, caplog: pytest.LogCaptureFixture
) -> None:
    plane = await start_plane(write_deadline="1.0")
    reading = threading.Event()

    def deaf() -> Iterator[pb.ClientMessage]:
        yield hello("deaf", config())
        instance = types.Instance(service="orders", id="a", address="10.0.0.1", port=8000)
        yield pb.ClientMessage(register=pb.Register(request_id=1, instance=instance))
        while not reading.wait(0.2):
            yield pb.ClientMessage(heartbeat=pb.Heartbeat())

    def connected() -> set[str]:
        return {client.node_id for client in plane.clients.local()}

    ending = asyncio.create_task(asyncio.to_thread(threaded, plane.grpc_address, deaf(), reading))
    async with Wire(plane.grpc_address) as good:
        await good.hello("good", follow=(config(),))
        await good.delta()
        await until(lambda: len(plane.view.instances(ORDERS)) == 1)
        memory, waits = [], []
        loop = asyncio.get_running_loop()
        number = 0
        async with asyncio.timeout(30):
            while "deaf" in connected() or number < 30:
                number += 1
                started = loop.time()
                await release(plane, bytes([32 + number % 90]) * 250_000)
                await good.delta()
                waits.append(loop.time() - started)
                memory.append(psutil.Process(os.getpid()).memory_info().rss)
        # What was on its way fills buffers; from then on nothing grows, however many releases there are.
        assert memory[-1] - memory[len(memory) // 2] < 40 * 1024 * 1024
        assert sorted(waits)[len(waits) // 2] < 1.0
        await until(lambda: plane.view.instances(ORDERS) == [])
        reading.set()
        code, error = await asyncio.wait_for(ending, 20)
        assert (code, error.code, error.retryable) == (grpc.StatusCode.DEADLINE_EXCEEDED, "stream.stuck", True)
        await release(plane, b"still here")
        assert (await good.delta()).resources[0].config.content == b"still here"
    assert not plane.failed.done()
    assert [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}] == []


async def test_a_client_that_reads_but_never_answers_is_cut_off(start_plane: StartPlane) -> None:
    plane = await start_plane(write_deadline="0.5")
    await release(plane, b"1")
    async with Wire(plane.grpc_address) as wire:
        await wire.hello(follow=(config(),), beat=0)
        await wire.delta(ack=False)
        code, error = await wire.ended()
    assert (code, error.code) == (grpc.StatusCode.DEADLINE_EXCEEDED, "stream.stuck")
    assert "acknowledge" in error.message


@pytest.mark.parametrize("half", ["writing", "deciding"])
async def test_a_fault_of_the_servers_own_ends_the_one_stream_that_met_it(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, half: str
) -> None:
    async with Wire(plane.grpc_address) as wire, Wire(plane.grpc_address) as other:
        await wire.hello(beat=0)
        await other.hello("other")

        def fail(*args: object, **kwargs: object) -> bytes:
            raise RuntimeError("a bug")

        with monkeypatch.context() as broken:
            broken.setattr(plane._mesh.encoder, "delta", fail)
            broken.setattr(plane.operations, "register", fail)
            if half == "writing":
                await wire.send(subscribe=pb.Subscribe(subscriptions=[config()]))
            else:
                await wire.register("a")
            code, error = await wire.ended()
        assert (code, error.code) == (grpc.StatusCode.INTERNAL, "server.internal")
        assert "a bug" in caplog.text
        await other.enrol("b")


async def test_a_client_that_does_not_speak_is_cut_off_at_last(start_plane: StartPlane) -> None:
    plane = await start_plane(heartbeat_window="0.5")
    async with Wire(plane.grpc_address) as wire:
        await wire.hello(beat=0)
        code, error = await wire.ended()
        assert (code, error.code) == (grpc.StatusCode.DEADLINE_EXCEEDED, "stream.stuck")


async def test_bytes_that_are_no_message_are_refused(plane: ControlPlane) -> None:
    async with grpc.aio.insecure_channel(plane.grpc_address) as channel:
        for first in (None, pb.ClientMessage(hello=pb.Hello(node=types.Node(id="a"))).SerializeToString()):
            call: Any = channel.stream_stream("/trimtab.v1.Mesh/Connect", None, None)(None)
            if first is not None:
                await call.write(first)
            await call.write(b"\xff\xff\xff garbage")
            code, error = await ending(call)
            assert (code, error.code) == (grpc.StatusCode.INVALID_ARGUMENT, "request.malformed")


@pytest.mark.parametrize("port", ["grpc", "http"])
async def test_garbage_on_a_port_disturbs_nobody(plane: ControlPlane, port: str) -> None:
    address = plane.grpc_address if port == "grpc" else plane.http_address
    host, _, number = address.rpartition(":")
    async with Wire(plane.grpc_address) as wire:
        await wire.hello()
        for garbage in (os.urandom(4096), b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01" + os.urandom(200), b""):
            reader, writer = await asyncio.open_connection(host, int(number))
            writer.write(garbage)
            writer.write_eof()
            try:
                async with asyncio.timeout(2):
                    await reader.read()
            except (TimeoutError, ConnectionError):
                assert garbage, "an empty connection is simply closed"
            writer.close()
        for _ in range(50):
            with socket.create_connection((host, int(number)), timeout=5) as rude:
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        await wire.enrol("a")
    assert not plane.failed.done()


async def test_a_replica_that_has_not_listed_yet_refuses_and_says_so(
    plane: ControlPlane,
) -> None:
    plane.readiness.started = False
    async with Wire(plane.grpc_address) as wire:
        code, error = await wire.ended()
    plane.readiness.started = True
    assert (code, error.code, error.retryable) == (grpc.StatusCode.UNAVAILABLE, "server.not_ready", True)


async def test_a_goodbye_that_cannot_be_carried_out_for_a_mistake_of_ours_is_told_and_logged(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def mistaken(*_: object) -> None:
        raise RuntimeError("a mistake")

    async with Wire(plane.grpc_address) as wire:
        await wire.hello()
        await wire.enrol("a")
        monkeypatch.setattr(plane._mesh.keeper, "end", mistaken)
        await wire.send(goodbye=pb.Goodbye(reason="stopped"))
        code, error = await wire.ended()
    monkeypatch.undo()
    assert (code, error.code) == (grpc.StatusCode.INTERNAL, "server.internal")
    assert "a mistake" in caplog.text


class OfTheLoop(set[Any]):
    """A set that its own thread alone may walk."""

    def __iter__(self) -> Iterator[Any]:
        assert threading.current_thread() is threading.main_thread()
        return super().__iter__()


async def test_a_scrape_counts_streams_and_subscriptions_without_walking_what_changes(plane: ControlPlane) -> None:
    plane._mesh._streams = OfTheLoop(plane._mesh._streams)
    async with Wire(plane.grpc_address) as wire:
        await wire.hello(follow=(config(),))
        told = (await asyncio.to_thread(generate_latest, plane.metrics.registry)).decode()
    assert "trimtab_streams 1.0" in told
    assert "trimtab_subscriptions 1.0" in told
