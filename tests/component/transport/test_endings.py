"""However a call ends, its handler is told, and nothing of it is left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from controlplane.transport.call import Call, CallEnded
from tests.component.transport.conftest import PREFIX, Serve, Served, until
from tests.component.transport.raw import END_STREAM, Raw, opened, reset, said

TALK, SAME = PREFIX + "Talk", PREFIX + "Same"


class Watched:
    """Handlers that wait in every way there is, and tell how they ended."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []

    async def _watch(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        self.started.append(name)
        try:
            await work()
            self.ended.append(f"{name} returned")
        except asyncio.CancelledError:
            self.ended.append(f"{name} was cancelled")
            raise

    async def reads(self, requests: object, call: Call) -> None:
        async def work() -> None:
            while await call.read() is not None:
                continue

        await self._watch("reads", work)

    async def writes(self, requests: object, call: Call) -> None:
        async def work() -> None:
            while True:
                await call.write(bytes(10_000))

        await self._watch("writes", work)

    async def sleeps(self, requests: object, call: Call) -> None:
        await self._watch("sleeps", asyncio.Event().wait)

    async def yields(self, requests: object, call: Call) -> AsyncIterator[bytes]:
        self.started.append("yields")
        try:
            while True:
                yield bytes(10_000)
        finally:
            self.ended.append("yields was closed")

    def handlers(self) -> dict[str, Any]:
        kind: Any = grpc.stream_stream_rpc_method_handler
        return {name: kind(getattr(self, name)) for name in WAYS}


WAYS = {
    "reads": "reads was cancelled",
    "writes": "writes was cancelled",
    "sleeps": "sleeps was cancelled",
    "yields": "yields was closed",
}


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
async def waiting(serve: Serve, watched: Watched) -> Served:
    return await serve(**watched.handlers())


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            continue
    return caught.value


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_cancels_ends_its_handler(way: str, waiting: Served, watched: Watched) -> None:
    channel = waiting.channel()
    call = channel.stream_stream(PREFIX + way)()
    await until(lambda: watched.started)
    call.cancel()
    await until(lambda: watched.ended)
    assert watched.ended == [WAYS[way]]
    await until(lambda: not waiting.running)
    assert [connection._calls for connection in waiting.connections] == [{}]
    assert await channel.unary_unary(SAME)(b"the connection is whole") == b"the connection is whole"


@pytest.mark.parametrize("way", WAYS)
async def test_a_deadline_that_passes_ends_its_handler(way: str, waiting: Served, watched: Watched) -> None:
    call = waiting.channel().stream_stream(PREFIX + way)(timeout=0.1)
    assert (await failure(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: watched.ended)
    assert watched.ended == [WAYS[way]]
    await until(lambda: not waiting.running)


async def test_the_server_itself_watches_the_deadline(waiting: Served, watched: Watched) -> None:
    async with Raw(waiting.port) as peer:
        peer.send(opened(1, PREFIX + "reads", grpc_timeout="50m"), opened(3, SAME, grpc_timeout="0n"))
        assert (await peer.answer(3))[1]["grpc-status"] == "4"
        assert (await peer.answer(1))[1]["grpc-status"] == "4"
        await until(lambda: watched.ended == ["reads was cancelled"])
        peer.send(opened(5, SAME, grpc_timeout="99999999H"), said(5, b"a long time", END_STREAM))
        assert (await peer.answer(5))[0] == [b"a long time"]


async def test_a_call_that_ends_in_time_forgets_its_deadline(shop: Served) -> None:
    async with Raw(shop.port) as peer:
        peer.send(opened(1, SAME, grpc_timeout="60m"), said(1, b"quick", END_STREAM))
        assert (await peer.answer(1))[1]["grpc-status"] == "0"
        await asyncio.sleep(0.1)
        await peer.answers_pings()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["abort", "close", "reset"])
async def test_a_connection_that_is_gone_takes_its_calls_along(
    how: str, way: str, waiting: Served, watched: Watched
) -> None:
    async with Raw(waiting.port) as peer:
        peer.send(*(opened(stream, PREFIX + way) for stream in (1, 3, 5)))
        await until(lambda: len(watched.started) == 3)
        match how:
            case "abort":
                peer.writer.transport.abort()
            case "close":
                peer.writer.close()
            case "reset":
                peer.send(*(reset(stream) for stream in (1, 3, 5)))
        await until(lambda: len(watched.ended) == 3)
        assert set(watched.ended) == {WAYS[way]}
        await until(lambda: not waiting.running)
        await until(lambda: how == "reset" or not waiting.connections)


async def test_what_a_generator_holds_is_let_go_of_before_its_task_ends(serve: Serve) -> None:
    order: list[str] = []

    async def slow_to_close(requests: object, call: Call) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(10_000)
        finally:
            await asyncio.sleep(0.01)
            order.append("closed")

    kind: Any = grpc.stream_stream_rpc_method_handler
    served = await serve(Talk=kind(slow_to_close))
    async with Raw(served.port) as peer:
        peer.send(opened(1, TALK))
        await until(lambda: served.running)
        (task,) = served.running
        task.add_done_callback(lambda _: order.append("done"))
        await peer.headers(1)
        peer.send(reset(1))
        await until(lambda: "done" in order)
    assert order == ["closed", "done"]


async def test_a_handler_that_goes_on_after_the_end_is_told(serve: Serve) -> None:
    told: list[type[BaseException]] = []

    async def stubborn(requests: object, call: Call) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert await call.read() is None
            try:
                await call.write(b"too late")
            except CallEnded as end:
                told.append(type(end))
                raise

    kind: Any = grpc.stream_stream_rpc_method_handler
    served = await serve(Talk=kind(stubborn))
    call = served.channel().stream_stream(TALK)()
    await until(lambda: served.running)
    await asyncio.sleep(0.05)
    call.cancel()
    await until(lambda: told)
    await until(lambda: not served.running)


async def test_nothing_is_left_of_a_thousand_calls(shop: Served) -> None:
    async with Raw(shop.port) as peer:
        for stream in range(1, 2_001, 2):
            peer.send(opened(stream, SAME, grpc_timeout="1H"), said(stream, b"a", END_STREAM))
            if stream % 100 == 99:
                await peer.writer.drain()
                while (await peer.next(0)).stream != stream:
                    continue
    await until(shop.idle)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) is Call]
