"""What only ASGI servers can do, and what applications see of it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from trimtab import Mesh
from trimtab.core.serving import Arrival
from trimtab.errors import MeshClosed, SettingsInvalid
from trimtab.http.httpx import async_client
from trimtab.policy.canonical import encode
from trimtab.servers.asgi import MeshServer

from tests.support.fake_mesh import FakeMesh
from tests.unit.sdk_http.known_mesh import AsyncKnownMesh, endpoint_at
from tests.unit.serving.served import SERVICE, ServedMesh, asgi_server, release, until, until_async
from tests.unit.serving.shop import Shop

ONE_PLACE = "default: {server: {concurrency: 1, queue: 2, wait: 20s}}"


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.open.set()


def test_a_client_that_vanishes_while_it_waits_leaves_the_queue(shop: Shop) -> None:
    mesh = ServedMesh(ONE_PLACE)
    with asgi_server(MeshServer(shop.asgi(), mesh, "orders")) as url, httpx.Client() as http:
        where = httpx.URL(url)
        with socket.create_connection((where.host, where.port)) as first:
            first.sendall(b"GET /hold?name=first HTTP/1.1\r\nHost: orders\r\n\r\n")
            until(lambda: shop.served == ["first"])
            with socket.create_connection((where.host, where.port)) as second:
                # Also one that vanishes in the middle of its body.
                second.sendall(b"POST /echo HTTP/1.1\r\nHost: orders\r\nContent-Length: 100\r\n\r\nthe beginning")
                until(lambda: mesh.waiting == 1)
            until(lambda: mesh.waiting == 0)
            assert int(mesh.serving) == 1
        shop.open.set()
        until(lambda: mesh.at_rest)
        assert http.get(f"{url}/tell").status_code == 200


def test_what_is_no_http_passes(shop: Shop) -> None:
    mesh = ServedMesh("default: {server: {limit: {rate: 1/m}}}")
    with TestClient(MeshServer(shop.asgi(), mesh, "orders")) as http:
        for _ in range(2):
            with http.websocket_connect("/socket") as conversation:
                assert conversation.receive_text() == "hello"
        assert [http.get("/tell").status_code for _ in range(2)] == [200, 429]


async def test_a_call_that_is_made_while_serving_ends_in_time_for_the_one_that_is_served() -> None:
    seen: list[dict[str, str]] = []

    async def stock(request: Request) -> JSONResponse:
        seen.append(dict(request.headers))
        return JSONResponse({})

    with asgi_server(Starlette(routes=[Route("/", stock)])) as url:
        mesh = AsyncKnownMesh(endpoint_at(httpx.URL(url).port or 0), policy="default: {timeout: {total: 10s}}")

        async def order(request: Request) -> JSONResponse:
            async with async_client(mesh) as http:
                # Tasks that are started for the call inherit its time as well.
                await asyncio.create_task(http.get("mesh://stock/"))
            return JSONResponse({})

        orders = MeshServer(Starlette(routes=[Route("/", order)]), ServedMesh(), "orders")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(orders), base_url="http://orders") as http:
            await http.get("/", headers={"trimtab-timeout-ms": "3000", "trimtab-priority": "high"})
            await http.get("/")
    assert 2000 < int(seen[0]["trimtab-timeout-ms"]) < 3000
    assert seen[0]["trimtab-priority"] == "high"
    assert 9000 < int(seen[1]["trimtab-timeout-ms"]) <= 10_000
    assert "trimtab-priority" not in seen[1]


async def test_what_was_read_while_a_call_waited_is_received_first_and_once() -> None:
    mesh = ServedMesh(ONE_PLACE)
    asked = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked > 3:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": bytes([asked]) * 30_000, "more_body": asked < 3}

    got: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            got.append(message["body"][:1])
            more = message["more_body"]

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    held = mesh.orders.arrive(Arrival(), 0.0)
    assert held is not None
    call = asyncio.create_task(MeshServer(app, mesh, "orders")(scope, receive, send))
    await until_async(lambda: mesh.waiting == 1 and asked >= 3)
    held.leave(0.1)
    await call
    assert got == [b"\x01", b"\x02", b"\x03"]
    assert mesh.at_rest
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancelled_call_leaves_the_queue() -> None:
    mesh = ServedMesh(ONE_PLACE)
    held = mesh.orders.arrive(Arrival(), 0.0)
    assert held is not None

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    call = asyncio.create_task(MeshServer(never, mesh, "orders")(scope, never, never))
    await until_async(lambda: mesh.waiting == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    held.leave(0.1)
    assert mesh.at_rest


async def test_a_server_of_a_closed_mesh_serves_on() -> None:
    class Closed(ServedMesh):
        def gate(self, service: str, *, namespace: str | None = None) -> Any:
            raise MeshClosed

    app = MeshServer(Shop().asgi(), Closed(), "orders")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://orders") as http:
        assert (await http.get("/tell")).status_code == 200


def test_a_mesh_without_a_service_is_refused_where_it_is_written() -> None:
    with pytest.raises(SettingsInvalid, match="what it serves"):
        MeshServer(Shop().asgi(), ServedMesh())


def test_a_policy_comes_to_the_running_server_as_it_is_released_and_goes_as_it_is_ended(shop: Shop) -> None:
    with FakeMesh() as control, Mesh(control.address, snapshot=False) as mesh:
        app = MeshServer(shop.asgi(), mesh, "orders")
        with TestClient(app) as http:
            assert http.get("/tell").status_code == 200
            control.store.enact(SERVICE, encode(release("default: {server: {limit: {rate: 1/m}}}").policy))
            until(lambda: http.get("/tell").status_code == 429)
            control.store.enact("default/*", encode(release("default: {timeout: 1s}", name="*").policy))
            assert http.get("/tell").status_code == 429
            control.store.enact(SERVICE, None)
            until(lambda: http.get("/tell").status_code == 200)
        # A server asks for the policies of its service, not for the addresses of its own kind.
        followed = {name for stream in control.store.streams for _, name in stream.held}
        assert followed == {SERVICE, "default/*"}


def test_the_middleware_finds_the_mesh_of_the_lifespan(shop: Shop) -> None:
    @asynccontextmanager
    async def nothing(app: Any) -> AsyncIterator[None]:
        yield

    with FakeMesh() as control, Mesh(control.address, snapshot=False) as mesh:
        control.store.enact(SERVICE, encode(release("default: {server: {limit: {rate: 1/m}}}").policy))
        app = shop.asgi()
        app.router.lifespan_context = mesh.fastapi("orders", port=9, address="127.0.0.1", lifespan=nothing)
        app.add_middleware(MeshServer, readiness="/readyz")
        with TestClient(app) as http:
            until(lambda: http.get("/tell").status_code == 429)
            assert http.get("/readyz").text == "ready\n"
            assert json.loads(http.get("/tell").text)["code"] == "call.rate_limited"
