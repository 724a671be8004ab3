"""The asyncio twin: the same mesh, awaited, and a loop that is never blocked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from trimtab import AsyncMesh, ConfigInvalid, MeshClosed, NoEndpoints, NotConnected, Refused
from trimtab.v1.types_pb2 import HEALTH_DRAINING, Error

from tests.support.fake_mesh import FakeMesh, endpoint

ORDERS = "default/orders"


@pytest.fixture
async def mesh(server: FakeMesh, tmp_path: Path) -> AsyncIterator[AsyncMesh]:
    async with AsyncMesh(server.address, snapshot_dir=tmp_path, load=lambda: (0.0, 0.0)) as made:
        yield made


async def until(condition: object, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)


class Heart:
    """Measures the longest time for which the loop did not run."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def beat(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now


async def test_picking_registering_and_leaving(mesh: AsyncMesh, server: FakeMesh) -> None:
    registration = await mesh.register("web", 9000, state="starting")
    await registration.ready()
    with await mesh.pick("web") as pick:
        assert pick.endpoint.port == 9000
        assert mesh.in_flight == (0, 1)
    await registration.update(weight=3)
    await registration.drain()
    assert server.store.endpoints["default/web"]["127.0.0.1-9000"].health == HEALTH_DRAINING
    await registration.deregister()
    assert not server.store.ids("default/web")
    await registration.deregister()


async def test_many_tasks_use_a_service_for_the_first_time_together(mesh: AsyncMesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    picks = await asyncio.gather(*(mesh.pick("orders") for _ in range(50)))
    assert mesh.in_flight == (0, 50)
    for pick in picks:
        pick.done()
    assert len(server.sent("hello")) == 1


async def test_a_watch_yields_what_is_known_and_then_every_newest_state(mesh: AsyncMesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    states = mesh.watch("orders")
    assert set((await anext(states)).endpoints) == {"a"}
    server.store.put(ORDERS, endpoint("b"))
    server.store.put(ORDERS, endpoint("c"))
    async with asyncio.timeout(10):
        while set((await anext(states)).endpoints) != {"a", "b", "c"}:
            await asyncio.sleep(0)
    await states.aclose()  # type: ignore[attr-defined]


async def test_configuration_is_live(mesh: AsyncMesh, server: FakeMesh) -> None:
    class Limits(BaseModel):
        rate: int

    server.store.publish("default/orders/app", "json", b'{"rate": 1}')
    limits = await mesh.config("orders/app", model=Limits)
    server.store.publish("default/orders/app", "json", b'{"rate": 2}')
    await until(lambda: limits.rate == 2)
    server.store.publish("default/orders/bad", "json", b"[]")
    with pytest.raises(ConfigInvalid):
        await mesh.config("orders/bad", model=Limits)


async def test_errors_are_the_same_as_without_asyncio(mesh: AsyncMesh, server: FakeMesh) -> None:
    with pytest.raises(NoEndpoints, match="never heard of it"):
        await mesh.pick("nobody")
    with pytest.raises(NoEndpoints):
        await mesh.wait_ready("nobody", timeout=0.1)
    server.refusals["default/web"] = Error(code="instance.duplicate", message="held by another session")
    with pytest.raises(Refused, match=r"instance\.duplicate"):
        await mesh.register("web", 9000)


async def test_a_cancelled_registration_is_taken_back(mesh: AsyncMesh, server: FakeMesh) -> None:
    server.refusals["default/web"] = Error(code="store.unavailable", message="away", retryable=True)
    registering = asyncio.create_task(mesh.register("web", 9000))
    await until(lambda: server.sent("register"))
    registering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await registering
    server.refusals.clear()
    count = len(server.sent("heartbeat"))
    await until(lambda: len(server.sent("heartbeat")) > count + 4)
    assert not server.store.ids("default/web")


async def test_a_missing_server_never_blocks_the_loop(tmp_path: Path) -> None:
    heart = Heart()
    async with AsyncMesh("127.0.0.1:1", snapshot_dir=tmp_path, load=lambda: (0.0, 0.0)) as mesh:
        beating = asyncio.create_task(heart.beat())
        with pytest.raises(NotConnected):
            await mesh.register("web", 9000, timeout=1.0)
        with pytest.raises(NoEndpoints):
            await mesh.pick("orders")
        with pytest.raises(NoEndpoints):
            await mesh.wait_ready("orders", timeout=0.5)
    beating.cancel()
    # Waits of more than a second went by; the loop had its turn all the while, on however busy a machine.
    assert heart.longest < 0.7


async def test_after_close_every_use_says_so(mesh: AsyncMesh) -> None:
    await mesh.close()
    with pytest.raises(MeshClosed):
        await mesh.pick("orders")
    with pytest.raises(MeshClosed):
        await mesh.register("web", 9000)
    await mesh.close()


def test_one_mesh_serves_several_loops(server: FakeMesh, tmp_path: Path) -> None:
    server.store.put(ORDERS, endpoint("a"))
    mesh = AsyncMesh(server.address, snapshot_dir=tmp_path, load=lambda: (0.0, 0.0))

    async def once() -> str:
        with await mesh.pick("orders") as pick:
            return pick.endpoint.id

    assert [asyncio.run(once()) for _ in range(2)] == ["a", "a"]
    asyncio.run(mesh.close())
