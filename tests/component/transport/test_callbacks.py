"""Calls without a task: begun where they come in, called back, and told once when they end by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest

from controlplane.transport.call import MAX_MESSAGE, Aborted, Call
from tests.component.transport.conftest import PREFIX, Serve, Served, until
from tests.component.transport.raw import DATA, END_STREAM, HEADERS, Raw, frame, message, opened, reset, said

CHAT = PREFIX + "Chat"


class Chat:
    """Echoes in capitals, ends with its client, and keeps account."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.came: list[bytes | None] = []
        self.gone = 0

    def begin(self, call: Call) -> None:
        self.calls.append(call)
        call.receive(lambda came: self.answer(call, came), lambda: None, self.left)

    def answer(self, call: Call, came: bytes | None) -> None:
        self.came.append(came)
        if came is None:
            call.complete()
        elif came == b"enough":
            call.finish(grpc.StatusCode.ABORTED, "enough it is")
        else:
            call.send(came.upper())

    def left(self) -> None:
        self.gone += 1


@pytest.fixture
def chat() -> Chat:
    return Chat()


@pytest.fixture
async def served(serve: Serve, chat: Chat) -> Served:
    served = await serve()
    served.server.add_callback_handler(CHAT, chat.begin)
    return served


async def test_a_call_is_answered_in_the_write_that_its_opening_caused(served: Served) -> None:
    async with Raw(served.port) as peer:
        peer.send(opened(1, CHAT), said(1, b"hello"))
        assert (await peer.next(HEADERS, 1)).payload
        assert (await peer.next(DATA, 1)).payload == message(b"HELLO")
        peer.send(said(1, b"bye", END_STREAM))
        assert (await peer.answer(1))[1]["grpc-status"] == "0"
    await until(served.idle)


async def test_grpc_s_own_client_talks_to_it(served: Served, chat: Chat) -> None:
    call = served.channel().stream_stream(CHAT)()
    for word in (b"one", b"two"):
        await call.write(word)
        assert await call.read() == word.upper()
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
    assert (chat.came, chat.gone) == ([b"one", b"two", None], 0)


async def test_who_ends_the_call_itself_is_not_told(served: Served, chat: Chat) -> None:
    async with Raw(served.port) as peer:
        peer.send(opened(1, CHAT), said(1, b"enough"), said(1, b"more"))
        trailers = (await peer.answer(1))[1]
        assert (trailers["grpc-status"], trailers["grpc-message"]) == ("10", "enough it is")
        await peer.answers_pings()
    await until(served.idle)
    assert (chat.came, chat.gone) == ([b"enough"], 0)


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        ("", lambda: reset(1)),
        ("8", lambda: frame(DATA, 0, 1, b"\0" + (MAX_MESSAGE + 1).to_bytes(4, "big"))),
        ("13", lambda: frame(DATA, END_STREAM, 1, b"\0\0")),
    ],
    ids=["cancelled", "too large", "cut short"],
)
async def test_what_its_client_ends_is_told_once(
    status: str, sent: Callable[[], bytes], served: Served, chat: Chat
) -> None:
    async with Raw(served.port) as peer:
        peer.send(opened(1, CHAT), sent())
        if status:
            assert (await peer.answer(1))[1]["grpc-status"] == status
        await until(lambda: chat.gone)
        await peer.answers_pings()
    await until(served.idle)
    assert chat.gone == 1


async def test_a_deadline_ends_it(served: Served, chat: Chat) -> None:
    async with Raw(served.port) as peer:
        peer.send(opened(1, CHAT, grpc_timeout="50m"))
        assert (await peer.answer(1))[1]["grpc-status"] == "4"
    await until(served.idle)
    assert chat.gone == 1


async def test_a_lost_connection_ends_all_its_calls(served: Served, chat: Chat) -> None:
    async with Raw(served.port) as peer:
        peer.send(*(opened(stream, CHAT) for stream in (1, 3, 5)))
        await until(lambda: len(chat.calls) == 3)
    await until(served.idle)
    assert chat.gone == 3


async def test_a_stop_waits_for_it_and_then_ends_it(served: Served, chat: Chat) -> None:
    async with Raw(served.port) as peer:
        peer.send(opened(1, CHAT), opened(3, CHAT))
        await until(lambda: len(chat.calls) == 2)
        stopping = asyncio.create_task(served.server.stop(0.2))
        peer.send(said(3, b"last", END_STREAM))
        messages, trailers = await peer.answer(3)
        assert (messages, trailers["grpc-status"], chat.gone) == ([b"LAST"], "0", 0)
        trailers = (await peer.answer(1))[1]
        assert (trailers["grpc-status"], trailers["grpc-message"]) == ("14", "the server is shutting down")
        await stopping
    assert chat.gone == 1


async def test_a_guard_sees_it_first(serve: Serve, chat: Chat) -> None:
    def nobody(call: Call) -> None:
        raise Aborted(grpc.StatusCode.UNAUTHENTICATED, "nobody", ())

    served = await serve(guard=nobody)
    served.server.add_callback_handler(CHAT, chat.begin)
    async with Raw(served.port) as peer:
        peer.send(opened(1, CHAT), said(1, b"hello"))
        assert (await peer.answer(1))[1]["grpc-status"] == "16"
    await until(served.idle)
    assert not chat.calls


async def test_who_fails_to_begin_ends_his_own_call_alone(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def begin(call: Call) -> None:
        if call.request.metadata:
            raise Aborted(grpc.StatusCode.UNAVAILABLE, "not yet", ())
        raise RuntimeError("a mistake")

    served = await serve()
    served.server.add_callback_handler(CHAT, begin)
    async with Raw(served.port) as peer:
        peer.send(opened(1, CHAT), opened(3, CHAT, why="not"))
        assert (await peer.answer(1))[1]["grpc-status"] == "2"
        assert (await peer.answer(3))[1]["grpc-status"] == "14"
        await peer.answers_pings()
    await until(served.idle)
    assert "a mistake" in caplog.text
    caplog.clear()
