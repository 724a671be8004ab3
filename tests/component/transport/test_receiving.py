"""Handlers of thousands of calls: they are called for every message, and send without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from controlplane.transport.call import Call
from tests.component.transport.conftest import PREFIX, Serve, until
from tests.component.transport.raw import (
    DATA,
    END_STREAM,
    PING,
    WINDOW_UPDATE,
    Raw,
    frame,
    message,
    opened,
    reset,
    said,
    window_update,
)

TALK, SAME = PREFIX + "Talk", PREFIX + "Same"
WINDOW = 65_535


class Talk:
    """A call that is received by callbacks; ``then`` does more with what came."""

    def __init__(self) -> None:
        self.came: list[bytes | None] = []
        self.drains = 0
        self.ready = asyncio.Event()
        self.waits = asyncio.Event()
        self.waits.set()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.then: Callable[[bytes | None], None] = lambda came: None
        self.then_drained: Callable[[], None] = lambda: None
        self.call: Call

    @property
    def handler(self) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._talk)

    async def _talk(self, requests: object, call: Call) -> None:
        self.call = call
        self.ready.set()
        await self.waits.wait()
        call.receive(self._deliver, self._drained)
        await self.over

    def _deliver(self, came: bytes | None) -> None:
        self.came.append(came)
        self.then(came)

    def _drained(self) -> None:
        self.drains += 1
        self.then_drained()


async def test_every_message_is_delivered_in_order_and_the_end_once(serve: Serve) -> None:
    talk = Talk()
    served = await serve(Talk=talk.handler)
    async with Raw(served.port) as peer:
        peer.send(opened(1, TALK), *(said(1, b"%d" % number) for number in range(100)), frame(DATA, END_STREAM, 1))
        await until(lambda: None in talk.came)
        talk.over.set_result(None)
        assert (await peer.answer(1))[1]["grpc-status"] == "0"
    assert talk.came == [*(b"%d" % number for number in range(100)), None]


async def test_what_came_before_is_delivered_and_its_window_opened_again(serve: Serve) -> None:
    talk = Talk()
    talk.waits.clear()
    served = await serve(Talk=talk.handler)
    async with Raw(served.port) as peer:
        peer.send(opened(1, TALK), *(said(1, bytes(9_995)) for _ in range(6)))
        await talk.ready.wait()
        await until(lambda: len(talk.call._inbox) == 6)
        talk.waits.set()
        assert (await peer.next(WINDOW_UPDATE, 1)).number >= 60_000
        assert len(talk.came) == 6


async def test_held_messages_wait_and_hold_the_client(serve: Serve) -> None:
    talk = Talk()
    talk.then = lambda came: talk.call.hold()
    served = await serve(Talk=talk.handler)
    async with Raw(served.port) as peer:
        peer.send(opened(1, TALK), *(said(1, bytes(9_995)) for _ in range(6)), frame(PING, 0, 0, bytes(8)))
        while (came := await peer.frame()).kind != PING:
            assert (came.kind, came.stream) != (WINDOW_UPDATE, 1)
        await until(lambda: talk.came)
        peer.send(frame(DATA, END_STREAM, 1))
        await peer.answers_pings()
        assert len(talk.came) == 1
        for count in range(2, 7):
            talk.call.resume()
            assert len(talk.came) == count
        assert None not in talk.came
        talk.call.resume()
        talk.call.resume()
        assert talk.came[6:] == [None]


async def test_a_message_may_be_resumed_while_it_is_delivered(serve: Serve) -> None:
    talk = Talk()

    def think(came: bytes | None) -> None:
        talk.call.hold()
        talk.call.resume()

    talk.then = think
    served = await serve(Talk=talk.handler)
    async with Raw(served.port) as peer:
        peer.send(opened(1, TALK), *(said(1, b"%d" % number) for number in range(20)), frame(DATA, END_STREAM, 1))
        await until(lambda: None in talk.came)
    assert talk.came == [*(b"%d" % number for number in range(20)), None]


async def test_a_call_may_be_finished_by_what_is_delivered(serve: Serve) -> None:
    talk = Talk()
    talk.then = lambda came: talk.call.finish(grpc.StatusCode.ABORTED, "enough")
    served = await serve(Talk=talk.handler)
    async with Raw(served.port) as peer:
        peer.send(opened(1, TALK) + frame(DATA, END_STREAM, 1, message(b"one") + message(b"two") + message(b"three")))
        trailers = (await peer.answer(1))[1]
        assert (trailers["grpc-status"], trailers["grpc-message"]) == ("10", "enough")
        assert talk.came in ([b"one"], [b"one", None])
        talk.over.set_result(None)
        peer.send(frame(PING, 0, 0, bytes(8)))
        assert (await peer.frame()).kind == PING  # one end, and nothing after it
    await until(served.idle)


async def test_what_was_sent_in_vain_is_drained_when_the_client_reads(serve: Serve) -> None:
    talk = Talk()
    served = await serve(Talk=talk.handler)
    async with Raw(served.port) as peer:
        peer.send(window_update(0, 2**30), opened(1, TALK))
        await talk.ready.wait()
        assert all(talk.call.send(bytes([number]) * 9_995) for number in range(6))
        assert not talk.call.send(bytes([6]) * 9_995)
        assert talk.drains == 0
        more = iter(range(7, 20))

        def go_on() -> None:
            for number in more:
                if not talk.call.send(bytes([number]) * 9_995):
                    return
            talk.over.set_result(None)

        talk.then_drained = go_on
        peer.send(*(window_update(1, 30_000) for _ in range(5)))
        messages, trailers = await peer.answer(1)
        assert messages == [bytes([number]) * 9_995 for number in range(20)]
        assert trailers["grpc-status"] == "0"
        assert talk.drains >= 4


async def test_a_call_that_is_over_takes_messages_for_nothing(serve: Serve) -> None:
    talk = Talk()
    served = await serve(Talk=talk.handler)
    async with Raw(served.port) as peer:
        peer.send(opened(1, TALK))
        await talk.ready.wait()
        peer.send(reset(1))
        await until(lambda: not served.running)
        assert talk.call.over
        assert talk.call.send(b"in vain")
        talk.call.finish(grpc.StatusCode.OK)
        talk.call.resume()
        peer.send(opened(3, SAME), said(3, b"next", END_STREAM))
        assert (await peer.answer(3))[0] == [b"next"]
