"""Hedged and mirrored calls over real HTTP: one set of sentences for all libraries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at, refusing_endpoint
from tests.unit.sdk_http.neighbours import LIBRARIES, Http, Server, serving

HEDGED = "default: {hedge: 20ms}"
MIRRORED = "default: {mirror: shadow}"


@pytest.fixture(params=LIBRARIES)
def http(request: pytest.FixtureRequest) -> Http:
    return Http(request.param)


@pytest.fixture
def first() -> Iterator[Server]:
    with serving("first") as server:
        yield server


@pytest.fixture
def second() -> Iterator[Server]:
    with serving("second") as server:
        yield server


async def until_idle(*meshes: KnownMesh) -> None:
    async with asyncio.timeout(10):
        while any(mesh.in_flight for mesh in meshes):
            await asyncio.sleep(0.005)


async def came(server: Server, event: str = "came") -> None:
    assert await asyncio.to_thread(getattr(server, event).wait, 10)


class TestHedging:
    async def test_a_copy_overtakes_an_endpoint_that_hangs(self, http: Http, first: Server, second: Server) -> None:
        first.hanging = True
        orders = KnownMesh(endpoint_at(first.port, "a"), endpoint_at(second.port, "b"), policy=HEDGED)
        status, text, call = await http.request(http.mesh(orders=orders), "PUT", "mesh://orders/v1?x=1", b" tea")
        assert (status, text) == (200, "second tea")
        assert [(attempt.endpoint.id, attempt.error) for attempt in call.attempts if attempt.endpoint] == [
            ("a", "cancelled"),
            ("b", ""),
        ]
        assert [(seen[0], seen[1], seen[3]) for seen in (*first.seen, *second.seen)] == [
            ("PUT", "/v1?x=1", b" tea")
        ] * 2
        if http.cancels:
            await came(first, "left")
        first.going_on.set()
        await until_idle(orders)

    async def test_copies_that_cannot_be_sent_move_on(self, http: Http, first: Server) -> None:
        dead = [refusing_endpoint("dead"), refusing_endpoint("dead too")]
        orders = KnownMesh(*dead, endpoint_at(first.port, "alive"), policy=HEDGED)
        status, _, call = await http.request(http.mesh(orders=orders), "GET", "mesh://orders/")
        assert (status, len(call.attempts)) == (200, 3)
        assert orders.outcomes == [("dead", False), ("dead too", False), ("alive", True)]
        assert orders.in_flight == 0

    async def test_what_may_not_be_repeated_is_sent_once(self, http: Http, first: Server, second: Server) -> None:
        first.hanging = True
        orders = KnownMesh(endpoint_at(first.port, "a"), endpoint_at(second.port, "b"), policy=HEDGED)
        charging = asyncio.create_task(http.request(http.mesh(orders=orders), "POST", "mesh://orders/", b""))
        await came(first)
        await asyncio.sleep(0.1)
        first.going_on.set()
        assert (await charging).text == "first"
        assert not second.seen

    @pytest.mark.parametrize("http", [name for name in LIBRARIES if name.endswith("async")], indirect=True)
    async def test_a_caller_that_goes_away_takes_all_copies_along(
        self, http: Http, first: Server, second: Server
    ) -> None:
        first.hanging = second.hanging = True
        orders = KnownMesh(endpoint_at(first.port, "a"), endpoint_at(second.port, "b"), policy=HEDGED)
        asking = asyncio.create_task(http.request(http.mesh(orders=orders), "GET", "mesh://orders/"))
        await came(first)
        await came(second)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert orders.in_flight == 0
        await came(first, "left")
        await came(second, "left")


class TestMirroring:
    async def test_another_service_gets_a_copy_that_says_what_it_is(
        self, http: Http, first: Server, second: Server
    ) -> None:
        orders = KnownMesh(endpoint_at(first.port), policy=MIRRORED)
        shadow = KnownMesh(endpoint_at(second.port))
        mesh = http.mesh(orders=orders, shadow=shadow)
        told = await http.request(mesh, "POST", "mesh://orders/v1?x=1", b" tea", lambda: came(second))
        assert told.text == "first tea"
        (method, path, headers, body) = second.seen[0]
        assert (method, path, body) == ("POST", "/v1?x=1", b" tea")
        assert headers["trimtab-mirrored"] == "1"
        assert headers["host"] == "orders"
        assert "trimtab-mirrored" not in first.seen[0][2]
        await until_idle(shadow)

    async def test_a_copy_that_hangs_or_cannot_be_sent_holds_up_nobody(
        self, http: Http, first: Server, second: Server
    ) -> None:
        second.hanging = True
        orders = KnownMesh(endpoint_at(first.port), policy=MIRRORED)

        async def copied() -> None:
            mirroring = orders.service.pipeline("GET").mirroring
            assert mirroring is not None
            second.going_on.set()
            async with asyncio.timeout(10):
                while mirroring.under_way:
                    await asyncio.sleep(0.005)

        for shadow in (KnownMesh(endpoint_at(second.port)), KnownMesh(refusing_endpoint("dead")), KnownMesh()):
            told = await http.request(http.mesh(orders=orders, shadow=shadow), "GET", "mesh://orders/", None, copied)
            assert told.text == "first"
            assert [attempt.error for attempt in told.call.attempts] == [""]
            await until_idle(shadow, orders)

    async def test_a_body_that_is_made_while_it_is_sent_is_not_copied(
        self, http: Http, first: Server, second: Server
    ) -> None:
        orders = KnownMesh(endpoint_at(first.port), policy=MIRRORED)
        shadow = KnownMesh(endpoint_at(second.port))
        body: Any = iter([b" one"])
        if http.cancels:

            async def chunks() -> Any:
                yield b" one"

            body = chunks()
        mesh = http.mesh(orders=orders, shadow=shadow)
        assert (await http.request(mesh, "PUT", "mesh://orders/", body)).status == 200
        await until_idle(shadow)
        assert not second.seen
