"""Real replicas on real etcd, each test with a mesh of its own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from controlplane.app import ControlPlane
from controlplane.settings import load_settings
from controlplane.store.embedded import EmbeddedEtcd
from controlplane.store.etcd import EtcdOptions, EtcdStore
from tests.support.link import Link

StartPlane = Callable[..., Awaitable[ControlPlane]]

QUICK = {
    "heartbeat_interval": "0.2",
    "heartbeat_window": "1.5",
    "grace": "0.3",
    "session_ttl": "30",
    "etcd_timeout": "1.0",
    "adoption_grace": "1.0",
    "drain_spread": "1.0",
    "guard_minimum": "1000",
}


async def started(mesh: str, endpoint: str, **settings: Any) -> tuple[ControlPlane, EtcdStore]:
    merged = {**QUICK, "grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0", "mesh": mesh, **settings}
    store = EtcdStore(EtcdOptions(endpoints=(endpoint,), timeout=float(merged["etcd_timeout"])))
    loaded = load_settings({name: str(value) for name, value in merged.items()}, file=None, environment={})
    plane = ControlPlane(loaded, store)
    await plane.start()
    async with asyncio.timeout(20):
        await plane.ready.wait()
    return plane, store


@pytest.fixture
def mesh() -> str:
    return f"m-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def start_plane(etcd: EmbeddedEtcd, mesh: str, cable: Link) -> AsyncIterator[StartPlane]:
    """``await start_plane(**settings)`` starts a replica of this test's mesh; it stops while its cable still holds."""
    async with AsyncExitStack() as stack:

        async def start(*, endpoint: str = "", **settings: Any) -> ControlPlane:
            plane, store = await started(mesh, endpoint or etcd.endpoint, **settings)
            stack.push_async_callback(store.close)
            stack.push_async_callback(stop, plane)
            return plane

        yield start


async def stop(plane: ControlPlane) -> None:
    """Stop a replica that has not stopped yet, and say so if one of its tasks had failed."""
    if not plane.readiness.stopping:
        await plane.stop()
    assert not plane.failed.done(), plane.failed.exception()


@pytest.fixture
async def plane(start_plane: StartPlane) -> ControlPlane:
    return await start_plane()


@pytest.fixture
async def cable(etcd: EmbeddedEtcd) -> AsyncIterator[Link]:
    """The wire between a replica and etcd, for tests that cut it."""
    async with Link(etcd.endpoint) as link:
        yield link


async def until(condition: Callable[[], bool], timeout: float = 15.0) -> None:
    """Poll until ``condition`` holds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)
