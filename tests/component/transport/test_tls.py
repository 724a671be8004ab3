"""TLS: only who agrees on HTTP/2 is spoken to."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.rpc.server import server_tls
from tests.component.transport.conftest import ALONE, PREFIX, Serve, Served, until
from tests.component.transport.raw import PREFACE, Raw, settings
from tests.support.authority import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
async def secure(serve: Serve, authority: Authority) -> Served:
    return await serve(tls=server_tls(*authority.issue("server"), None))


async def test_grpcs_client_is_served(secure: Served, authority: Authority) -> None:
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    channel: Any = grpc.aio.secure_channel(secure.address, credentials, ALONE)
    async with channel:
        for size in (0, 100, 300_000):
            assert await channel.unary_unary(PREFIX + "Same")(bytes(size)) == bytes(size)
    await until(secure.idle)


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
async def test_who_does_not_choose_http2_is_sent_away(
    protocols: list[str], secure: Served, authority: Authority
) -> None:
    context = ssl.create_default_context(cafile=authority.ca)
    if protocols:
        context.set_alpn_protocols(protocols)
    reader, writer = await asyncio.open_connection("127.0.0.1", secure.port, ssl=context)
    writer.write(PREFACE + settings())
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
    await until(secure.idle)


async def test_who_speaks_without_tls_is_sent_away(secure: Served) -> None:
    async with Raw(secure.port) as peer:
        assert b"HTTP" not in await peer.ended()
    await until(secure.idle)
