"""An etcd that lost its data, or was restored from an older copy: the mesh starts over from what processes know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from trimtab import AsyncMesh

from controlplane.app import ControlPlane
from controlplane.settings import load_settings
from controlplane.store.embedded import EmbeddedEtcd
from controlplane.store.etcd import EtcdOptions, EtcdStore
from tests.support.etcd import free_port


async def until(holds, timeout: float = 30.0) -> None:
    async with asyncio.timeout(timeout):
        while not holds():
            await asyncio.sleep(0.05)


@pytest.fixture
async def port() -> int:
    return free_port()


@pytest.fixture
async def first(port: int, tmp_path: Path) -> AsyncIterator[EmbeddedEtcd]:
    etcd = EmbeddedEtcd(tmp_path / "first", client_port=port)
    await etcd.start()
    yield etcd
    await etcd.stop()


@pytest.fixture
async def plane(first: EmbeddedEtcd) -> AsyncIterator[ControlPlane]:
    flags = {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0", "session_ttl": "6", "replica_ttl": "2"}
    settings = load_settings({**flags, "heartbeat_interval": "0.5", "heartbeat_window": "3"}, file=None, environment={})
    store = EtcdStore(EtcdOptions(endpoints=(first.endpoint,)))
    plane = ControlPlane(settings, store)
    await plane.start()
    try:
        await plane.ready.wait()
        yield plane
    finally:
        await plane.stop()
        await store.close()


async def test_what_lives_registers_again_and_what_is_dead_is_forgotten(
    plane: ControlPlane, first: EmbeddedEtcd, port: int, tmp_path: Path
) -> None:
    serving = AsyncMesh(plane.grpc_address, snapshot=False)
    calling = AsyncMesh(plane.grpc_address, snapshot=False)
    empty = EmbeddedEtcd(tmp_path / "second", client_port=port)
    try:
        for number in range(30):  # so that the empty store's revisions are far behind
            await plane.operations.put_config("default", "a", "b", format="text", content=b"%d" % number, author="")
        await serving.register("orders", 8000, address="127.0.0.1")
        await calling.wait_ready("orders")
        before = plane.view.revision

        await first.stop()
        await empty.start()
        await until(lambda: plane.view.revision < before)
        await until(lambda: plane.view.services("default"))
        await serving.register("orders", 8001, address="127.0.0.1")
        await until(lambda: {e.port for e in calling.sync.endpoints("orders")} == {8000, 8001})
        assert plane.view.config("default", "a", "b") is None
    finally:
        await calling.close()
        await serving.close()
        await empty.stop()
