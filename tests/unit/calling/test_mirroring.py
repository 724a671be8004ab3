"""Which calls are copied to another service, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading

from trimtab.calling.context import MIRRORED_HEADER, Marks, deadline, marks
from trimtab.core.calling.mirroring import LIMIT, Mirroring
from trimtab.errors import RateLimited
from trimtab.policy.sections import Mirror
from trimtab.testing import FakeAsyncMesh, FakeMesh, Reply, Request


def prepare(mesh: FakeMesh | FakeAsyncMesh, policy: str = "default: {mirror: shadow}") -> None:
    mesh.add("orders", "10.0.0.1:80")
    mesh.add("shadow", "10.0.1.1:80", "10.0.1.2:80")
    mesh.policy("orders", policy)
    mesh.respond("orders", 200)
    mesh.respond("shadow", 200)


async def test_a_share_of_the_calls_is_copied(fake_async_mesh: FakeAsyncMesh) -> None:
    prepare(fake_async_mesh, "default: {mirror: {service: shadow, share: 30%}}")
    async with fake_async_mesh.http_client() as http:
        for _ in range(200):
            await http.get("mesh://orders/")
            await fake_async_mesh.clock.pause(0.1)
    assert 40 <= len(fake_async_mesh.calls("shadow")) <= 80


async def test_a_copy_is_not_repeated_nor_raced_nor_answered_by_a_fallback(fake_async_mesh: FakeAsyncMesh) -> None:
    prepare(fake_async_mesh)
    fake_async_mesh.policy("shadow", "default: {hedge: 0s, fallback: {service: orders}}")
    fake_async_mesh.respond("shadow", Reply(status=503, latency=1))
    async with fake_async_mesh.http_client() as http:
        await http.get("mesh://orders/")
        await fake_async_mesh.clock.pause(2)
    (copy,) = fake_async_mesh.calls("shadow")
    assert [attempt.error for attempt in copy.attempts] == ["503"]
    assert len(fake_async_mesh.calls("orders")) == 1
    assert fake_async_mesh.in_flight == (0, 0)


async def test_a_call_does_not_wait_for_its_copy_which_has_a_time_of_its_own(fake_async_mesh: FakeAsyncMesh) -> None:
    prepare(fake_async_mesh, "default: {mirror: shadow, timeout: 1s}")
    fake_async_mesh.policy("shadow", "default: {timeout: off}")
    seen: list[Request] = []

    def hang(request: Request) -> Reply:
        seen.append(request)
        return Reply(latency=60)

    fake_async_mesh.respond("shadow", hang)
    began = fake_async_mesh.clock.now()
    async with fake_async_mesh.http_client(timeout=None) as http:
        await http.get("mesh://orders/")
        assert fake_async_mesh.clock.now() == began
        await fake_async_mesh.clock.pause(14)
        assert fake_async_mesh.in_flight == (0, 1)
        await fake_async_mesh.clock.pause(2)
        assert fake_async_mesh.in_flight == (0, 0)
    assert seen[0].headers["trimtab-timeout-ms"] == "15000"


async def test_a_call_that_is_refused_is_not_copied(fake_async_mesh: FakeAsyncMesh) -> None:
    prepare(fake_async_mesh, "default: {mirror: shadow, limit: 1/h}")
    async with fake_async_mesh.http_client() as http:
        for _ in range(3):
            with contextlib.suppress(RateLimited):
                await http.get("mesh://orders/")
        await fake_async_mesh.clock.pause(1)
    assert len(fake_async_mesh.calls("shadow")) == 1


async def test_nothing_is_copied_that_is_called_while_a_copy_is_served(fake_async_mesh: FakeAsyncMesh) -> None:
    prepare(fake_async_mesh)
    seen: list[Request] = []

    def note(request: Request) -> int:
        seen.append(request)
        return 200

    fake_async_mesh.respond("orders", note)
    token = marks.set(Marks(mirrored=True))
    try:
        async with fake_async_mesh.http_client() as http, fake_async_mesh.aiohttp_session() as session:
            await http.get("mesh://orders/")
            async with session.get("mesh://orders/"):
                pass
            await fake_async_mesh.clock.pause(1)
    finally:
        marks.reset(token)
    assert not fake_async_mesh.calls("shadow")
    assert [request.headers[MIRRORED_HEADER] for request in seen] == ["1", "1"], "and they say so to whom they call"


async def test_copies_do_not_inherit_the_time_of_the_call_that_is_served(fake_async_mesh: FakeAsyncMesh) -> None:
    prepare(fake_async_mesh)
    token = deadline.set(fake_async_mesh.clock.now() + 1)
    try:
        async with fake_async_mesh.http_client() as http:
            await http.get("mesh://orders/")
            await fake_async_mesh.clock.pause(0)
    finally:
        deadline.reset(token)
    (copy,) = fake_async_mesh.calls("shadow")
    assert copy.deadline == fake_async_mesh.clock.now() + 15


async def test_a_mesh_that_is_closed_takes_its_copies_along_and_no_call(fake_async_mesh: FakeAsyncMesh) -> None:
    prepare(fake_async_mesh, "default: {mirror: shadow, hedge: 1s}")
    fake_async_mesh.respond("orders", Reply(latency=3))
    fake_async_mesh.respond("shadow", Reply(latency=10))
    async with fake_async_mesh.http_client() as http:
        asking = asyncio.create_task(http.get("mesh://orders/"))
        await fake_async_mesh.clock.pause(0.1)
        assert fake_async_mesh.in_flight == (0, 2)
        fake_async_mesh.sync.close()
        await fake_async_mesh.clock.pause(0.1)
        assert fake_async_mesh.in_flight == (0, 1)
        assert (await asking).status_code == 200


def test_a_program_with_threads_has_its_copies_made_at_once_in_tests(fake_mesh: FakeMesh) -> None:
    prepare(fake_mesh)
    with fake_mesh.http_client() as http:
        http.post("mesh://orders/", content=b"tea")
    (copy,) = fake_mesh.calls("shadow")
    assert copy.attempts[0].error == ""


def test_what_is_too_much_is_dropped() -> None:
    mirroring = Mirroring(Mirror(service="shadow"), random.Random(0), threading.RLock())
    assert [mirroring.admits() for _ in range(LIMIT + 2)] == [True] * LIMIT + [False] * 2
    mirroring.ended()
    assert mirroring.admits()


async def test_a_namespaces_mirror_gets_no_copies_of_its_own_calls(fake_async_mesh: FakeAsyncMesh) -> None:
    prepare(fake_async_mesh, "default: {}")
    fake_async_mesh.policy("*", "default: {mirror: shadow}")
    async with fake_async_mesh.http_client() as http:
        await http.get("mesh://shadow/")
        await fake_async_mesh.clock.pause(1)
        assert len(fake_async_mesh.calls("shadow")) == 1
        await http.get("mesh://orders/")
        await fake_async_mesh.clock.pause(1)
        assert len(fake_async_mesh.calls("shadow")) == 2
