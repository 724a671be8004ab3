"""Who does not answer is dropped, who does is kept, and nobody suffers for this process having stood still."""

from __future__ import annotations

import asyncio
import time

import pytest

from controlplane.transport import connection, server
from tests.component.transport.conftest import PREFIX, Serve, Served, until
from tests.component.transport.raw import ACK, PING, SETTINGS, Raw, frame, opened


@pytest.fixture
async def quick(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.setattr(connection, "KEEPALIVE_TIME", 0.2)
    monkeypatch.setattr(connection, "KEEPALIVE_TIMEOUT", 0.4)
    monkeypatch.setattr(server, "_TICK", 0.05)
    monkeypatch.setattr(server, "_OVERSLEPT", 0.15)
    return await serve()


async def test_a_peer_that_does_not_answer_pings_is_dropped(quick: Served) -> None:
    async with Raw(quick.port) as peer:
        peer.send(opened(1, PREFIX + "Echo"))
        assert (await peer.next(PING)).flags == 0
        await peer.ended()
    await until(quick.idle)


async def test_a_peer_that_answers_is_kept(quick: Served) -> None:
    async with Raw(quick.port) as peer:
        for _ in range(4):
            ping = await peer.next(PING)
            peer.send(frame(PING, ACK, 0, ping.payload))
        await peer.answers_pings()


async def test_a_peer_that_speaks_is_not_asked(quick: Served) -> None:
    async with Raw(quick.port) as peer:
        await peer.next(SETTINGS)
        until_then = time.monotonic() + 0.6
        while time.monotonic() < until_then:
            peer.send(frame(PING, 0, 0, bytes(8)))
            assert (await peer.next(PING)).flags == ACK
            await asyncio.sleep(0.02)


async def test_a_peer_that_never_greets_is_sent_away(quick: Served) -> None:
    async with Raw(quick.port, greet=False) as peer:
        peer.send(b"PRI * HTTP")
        assert await peer.ended() == b""
    await until(quick.idle)


async def test_nobody_is_dropped_because_this_process_stood_still(quick: Served) -> None:
    async with Raw(quick.port) as peer:
        ping = await peer.next(PING)
        time.sleep(0.8)  # far beyond the time to answer: neither side could
        await asyncio.sleep(0.06)  # … and the server is the first to look at its clock
        peer.send(frame(PING, ACK, 0, ping.payload))
        await peer.answers_pings()
