"""Checks against real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from trimtab.run.checks import Check

from tests.component.sdk_http.fleet import free_port


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[int]:
    """A server that answers every request with the same bytes, on the port that is yielded."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 302 Found\r\n\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False),
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", False),
        (b"HTTP/1.1\r\n", False),
        (b"+PONG\r\n", False),
        (b"", False),
        (b"x" * 200_000, False),
    ],
)
async def test_a_page_passes_by_its_status(answer: bytes, passes: bool) -> None:
    async with saying(answer) as port:
        assert await Check("127.0.0.1", port, "/healthz").passes(5.0) is passes


async def test_any_answer_in_http_makes_ready_and_afterwards_the_port_counts() -> None:
    async with saying(b"HTTP/1.1 404 Not Found\r\n\r\n") as port:
        check = Check("127.0.0.1", port, "/", any_status=True)
        assert await check.passes(5.0)
        assert check.once_ready() == Check("127.0.0.1", port)
    async with saying(b"+PONG\r\n") as port:
        assert not await Check("127.0.0.1", port, "/", any_status=True).passes(5.0)


async def test_a_port_passes_when_it_accepts() -> None:
    async with saying(b"") as port:
        assert await Check("127.0.0.1", port).passes(5.0)
    assert not await Check("127.0.0.1", free_port()).passes(5.0)


async def test_a_page_that_says_nothing_does_not_hold_the_check_up() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert not await Check("127.0.0.1", port, "/").passes(0.1)
