"""mesh:// through aiohttp."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from trimtab.errors import DeadlineExceeded, NoEndpoints, RateLimited, RetriesExhausted
from trimtab.http.aiohttp import MeshResponse, session

from tests.unit.sdk_http.known_mesh import AsyncKnownMesh, endpoint_at, origin, refusing_endpoint

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")

NO_RETRY = "default: {retry: off}"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with origin() as port:
        yield port


class Served:
    """An aiohttp server that notes what it was asked and answers what a test wants."""

    def __init__(self) -> None:
        self.seen: list[web.Request] = []
        self.statuses: list[int] = []
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        if request.path == "/hang":
            await asyncio.sleep(30)
        if request.path == "/socket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data.upper())
            return socket
        if request.path == "/hangup":
            assert request.transport is not None
            request.transport.abort()
        status = self.statuses.pop(0) if self.statuses else 200
        return web.json_response({"n": len(self.seen), "body": await request.text()}, status=status)


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    app, shop = web.Application(), Served()
    app.router.add_route("*", "/{rest:.*}", shop.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    shop.port = runner.addresses[0][1]
    try:
        yield shop
    finally:
        await runner.cleanup()


async def ask(mesh: AsyncKnownMesh, method: str, url: str, **options: Any) -> tuple[MeshResponse, Any]:
    """One call in a session of its own: the response, and its JSON."""
    async with session(mesh) as http, http.request(method, url, **options) as answer:
        return answer, json.loads(await answer.read() or b"null")  # type: ignore[return-value]


async def test_a_call_goes_to_the_endpoint_that_was_picked_and_keeps_the_name_of_its_service(port: int) -> None:
    mesh = AsyncKnownMesh(endpoint_at(port))
    answer, seen = await ask(mesh, "POST", "mesh://orders/v1/a%20b?x=1&y=%26", data=b"hello", params={"z": "2"})
    assert (seen["host"], seen["path"], seen["method"], seen["body"]) == (
        "orders",
        "/v1/a%20b?x=1&y=%26&z=2",
        "POST",
        "hello",
    )
    assert str(answer.url) == "mesh://orders/v1/a%20b?x=1&y=%26&z=2"
    assert answer.trimtab is not None and answer.trimtab.endpoint is not None
    assert answer.trimtab.endpoint.port == port
    assert mesh.asked == [("orders", None)]
    assert mesh.outcomes == [("a", True)]


async def test_a_url_without_a_path_asks_for_the_root(port: int) -> None:
    mesh = AsyncKnownMesh(endpoint_at(port))
    assert (await ask(mesh, "GET", "mesh://orders"))[1]["path"] == "/"
    assert (await ask(mesh, "GET", "mesh://orders?page=2"))[1]["path"] == "/?page=2"


async def test_a_namespace_stands_behind_the_service(port: int) -> None:
    mesh = AsyncKnownMesh(endpoint_at(port))
    assert (await ask(mesh, "GET", "mesh://orders.shop/"))[1]["host"] == "orders.shop"
    assert mesh.asked == [("orders", "shop")]


async def test_a_service_can_be_the_base_of_all_urls(port: int) -> None:
    async with session(AsyncKnownMesh(endpoint_at(port)), base_url="mesh://orders/v1/") as http:
        async with http.get("42?x=1") as answer:
            assert (await answer.json(content_type=None))["path"] == "/v1/42?x=1"
        async with http.get(f"http://127.0.0.1:{port}/plain") as answer:
            assert (await answer.json(content_type=None))["path"] == "/plain"


async def test_a_refused_connection_moves_on_to_another_endpoint_also_with_a_body_that_is_read_once(port: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    mesh = AsyncKnownMesh(refusing_endpoint("dead"), refusing_endpoint("dead too"), endpoint_at(port, "alive"))
    answer, seen = await ask(mesh, "POST", "mesh://orders/", data=chunks())
    assert seen["body"] == "one two"
    assert answer.trimtab is not None
    assert [a.endpoint.id for a in answer.trimtab.attempts if a.endpoint] == ["dead", "dead too", "alive"]
    assert mesh.outcomes == [("dead", False), ("dead too", False), ("alive", True)]


async def test_three_refused_connections_end_the_call_and_name_the_endpoints() -> None:
    dead = [refusing_endpoint(f"dead-{n}") for n in range(5)]
    mesh = AsyncKnownMesh(*dead, policy=NO_RETRY)
    with pytest.raises(aiohttp.ClientConnectorError) as caught:
        await ask(mesh, "GET", "mesh://orders/")
    assert isinstance(caught.value, RetriesExhausted)
    assert all(endpoint.target in str(caught.value) for endpoint in dead[:3])
    assert dead[3].target not in str(caught.value)
    assert mesh.in_flight == 0


async def test_no_endpoint_is_an_error_of_the_mesh_and_of_the_library() -> None:
    with pytest.raises(NoEndpoints, match="no endpoint of orders is known") as caught:
        await ask(AsyncKnownMesh(), "GET", "mesh://orders/")
    assert isinstance(caught.value, aiohttp.ClientConnectionError)
    assert caught.value.service == "orders"


async def test_what_refuses_a_call_is_an_error_of_the_library_too(port: int) -> None:
    async with session(AsyncKnownMesh(endpoint_at(port), policy="default: {limit: {rate: 1/m}}")) as http:
        async with http.get("mesh://orders/") as answer:
            assert answer.status == 200
        with pytest.raises(RateLimited) as caught:
            await http.get("mesh://orders/")
    assert isinstance(caught.value, aiohttp.ClientConnectionError)
    assert 50 < caught.value.retry_after <= 60


async def test_a_server_that_hangs_up_on_what_must_not_be_repeated_is_not_asked_again_and_is_named() -> None:
    async with served() as shop:
        mesh = AsyncKnownMesh(endpoint_at(shop.port), endpoint_at(shop.port, "b"))
        with pytest.raises(aiohttp.ServerDisconnectedError, match=f"orders at 127.0.0.1:{shop.port}") as caught:
            await ask(mesh, "POST", "mesh://orders/hangup")
        assert len(shop.seen) == 1
    assert caught.value.__dict__["trimtab"].endpoint.id == "a"
    assert mesh.outcomes == [("a", False)]
    assert mesh.in_flight == 0


async def test_a_request_is_sent_as_often_as_the_policy_says_and_not_once_more_by_the_library() -> None:
    async with served() as shop:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await ask(AsyncKnownMesh(endpoint_at(shop.port), policy=NO_RETRY), "GET", "mesh://orders/hangup")
        assert len(shop.seen) == 1
        retry = "default: {retry: {attempts: 3, on: [reset, 503], backoff: 1ms..2ms}}"
        with pytest.raises(RetriesExhausted) as caught:
            await ask(AsyncKnownMesh(endpoint_at(shop.port), policy=retry), "GET", "mesh://orders/hangup")
        assert isinstance(caught.value, aiohttp.ServerDisconnectedError)
        assert len(shop.seen) == 4


async def test_an_answer_that_may_be_tried_again_is_and_its_body_is_sent_again() -> None:
    retry = "default: {retry: {attempts: 3, on: [503], backoff: 1ms..2ms}}"
    async with served() as shop:
        mesh = AsyncKnownMesh(endpoint_at(shop.port), policy=retry)
        shop.statuses = [503, 503]
        answer, told = await ask(mesh, "PUT", "mesh://orders/", json={"a": 1})
    assert (answer.status, told) == (200, {"n": 3, "body": '{"a": 1}'})
    assert mesh.in_flight == 0


async def test_a_body_that_breaks_after_status_200_is_a_failed_call(port: int) -> None:
    mesh = AsyncKnownMesh(endpoint_at(port))
    async with session(mesh) as http, http.get("mesh://orders/broken") as answer:
        with pytest.raises(aiohttp.ClientPayloadError, match=f"orders at 127.0.0.1:{port}") as caught:
            await answer.read()
    assert caught.value.__dict__["trimtab"].endpoint.id == "a"
    assert mesh.outcomes == [("a", False)]
    assert mesh.in_flight == 0


async def test_a_server_error_is_an_answer_and_counts_as_a_failure(port: int) -> None:
    mesh = AsyncKnownMesh(endpoint_at(port), policy=NO_RETRY)
    async with session(mesh) as http, http.get("mesh://orders/fail") as answer:
        assert answer.status == 503
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            answer.raise_for_status()
        assert str(caught.value.request_info.real_url) == "mesh://orders/fail"
    assert mesh.outcomes == [("a", False)]


async def test_a_call_is_in_flight_until_its_body_is_read_or_left() -> None:
    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    app = web.Application()
    app.router.add_get("/", large)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    mesh = AsyncKnownMesh(endpoint_at(runner.addresses[0][1]))
    async with session(mesh) as http:
        async with http.get("mesh://orders/") as answer:
            assert await answer.content.read(10)
            assert mesh.in_flight == 1
        assert mesh.in_flight == 0
        answer = await http.get("mesh://orders/")
        assert mesh.in_flight == 1
        answer.close()
        assert mesh.in_flight == 0
    await runner.cleanup()
    assert mesh.outcomes == [("a", True), ("a", True)]


async def test_connections_to_an_endpoint_are_kept(port: int) -> None:
    async with session(AsyncKnownMesh(endpoint_at(port))) as http:
        clients = set()
        for _ in range(4):
            async with http.get("mesh://orders/") as answer:
                clients.add((await answer.json(content_type=None))["client"])
    assert len(clients) == 1


async def test_a_redirect_to_the_name_of_the_service_stays_in_the_mesh(port: int) -> None:
    mesh = AsyncKnownMesh(endpoint_at(port))
    for where, then in (("moved", "/new?x=1"), ("relative", "/new")):
        answer, seen = await ask(mesh, "GET", f"mesh://orders/{where}", headers={"Authorization": "secret"})
        assert seen["path"] == then
        assert str(answer.url) == f"mesh://orders{then}"
        assert answer.request_info.headers["Authorization"] == "secret"
    async with session(mesh) as http, http.get("mesh://orders/moved", allow_redirects=False) as answer:
        assert answer.status == 307
    assert mesh.in_flight == 0


@pytest.mark.parametrize("url", ["mesh://orders:80/", "mesh://a.b.c/", "mesh://or_ders/"])
async def test_a_url_that_names_no_service_is_refused_with_the_place(url: str) -> None:
    mesh = AsyncKnownMesh()
    with pytest.raises(aiohttp.InvalidURL, match="mesh"):
        await ask(mesh, "GET", url)
    assert mesh.asked == []


async def test_an_instance_that_says_https_is_spoken_to_over_tls(port: int) -> None:
    mesh = AsyncKnownMesh(endpoint_at(port, scheme="https"), policy=NO_RETRY)
    with pytest.raises(aiohttp.ClientConnectorError, match=r"(?i)ssl|tls"):
        await ask(mesh, "GET", "mesh://orders/")
    async with session(mesh, scheme="http") as http, http.get("mesh://orders/") as answer:
        assert answer.status == 200


async def test_a_policy_ends_a_call_in_time_and_says_so() -> None:
    async with served() as shop:
        for policy, error in (
            ("default: {timeout: {total: 50ms}, retry: off}", DeadlineExceeded),
            ("default: {timeout: {attempt: 50ms}, retry: off}", aiohttp.ServerTimeoutError),
        ):
            mesh = AsyncKnownMesh(endpoint_at(shop.port), policy=policy)
            with pytest.raises(error) as caught:
                await ask(mesh, "GET", "mesh://orders/hang")
            assert isinstance(caught.value, (aiohttp.ServerTimeoutError, TimeoutError))
            assert mesh.in_flight == 0
        assert int(shop.seen[0].headers["trimtab-timeout-ms"]) <= 50


async def test_a_body_that_cannot_be_made_is_not_the_endpoints_failure(port: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one "
        raise KeyError("two")

    mesh = AsyncKnownMesh(endpoint_at(port))
    with pytest.raises(aiohttp.ClientConnectionError, match="two"):
        await ask(mesh, "POST", "mesh://orders/", data=chunks())
    assert (mesh.outcomes, mesh.in_flight) == ([], 0)


async def test_several_failures_tell_all_that_the_last_of_them_does() -> None:
    async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX-Big: " + b"a" * 60_000 + b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(talk_nonsense, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    mesh = AsyncKnownMesh(endpoint_at(port), policy="default: {retry: {attempts: 2, on: [reset], backoff: 1ms..1ms}}")
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        await ask(mesh, "GET", "mesh://orders/")
    server.close()
    await server.wait_closed()
    assert isinstance(caught.value, RetriesExhausted)
    assert caught.value.status == 400
    assert "none of 2 attempts" in str(caught.value)
    assert repr(caught.value)


@pytest.mark.parametrize("timeout", ["5s", "off"])
async def test_a_request_whose_own_time_is_over_is_not_tried_again(timeout: str) -> None:
    policy = f"default: {{timeout: {timeout}, retry: {{attempts: 3, on: [timeout], backoff: 1ms..1ms}}}}"
    async with served() as shop:
        mesh = AsyncKnownMesh(endpoint_at(shop.port), endpoint_at(shop.port, "b"), policy=policy)
        async with session(mesh) as http:
            with pytest.raises(TimeoutError) as caught:
                await http.get("mesh://orders/hang", timeout=aiohttp.ClientTimeout(total=0.05))
    assert len(caught.value.trimtab.attempts) == 1  # type: ignore[attr-defined]
    assert "5 s" not in str(caught.value)
    assert mesh.outcomes == [("a", False)]


async def test_another_service_is_not_asked_with_a_body_that_was_sent_already() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async with served() as shop:
        mesh = AsyncKnownMesh(endpoint_at(shop.port), policy="default: {retry: off, fallback: {service: spare}}")
        for body in (chunks(), b"one two"):
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await ask(mesh, "POST", "mesh://orders/hangup", data=body)
    assert mesh.asked == [("orders", None), ("orders", None), ("spare", None)]


async def test_a_cancelled_call_is_no_longer_in_flight() -> None:
    async with served() as shop:
        mesh = AsyncKnownMesh(endpoint_at(shop.port))
        async with session(mesh) as http:
            call = asyncio.create_task(http.get("mesh://orders/hang"))  # type: ignore[arg-type]
            async with asyncio.timeout(10):
                while mesh.in_flight == 0:
                    await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
    assert mesh.outcomes == []
    assert mesh.in_flight == 0
    counted = mesh.service.statistics.read()
    assert (counted.calls, counted.failures, counted.cancelled) == (1, 0, 1)


async def test_a_websocket_is_a_call_that_lasts_until_it_is_closed() -> None:
    async with served() as shop:
        mesh = AsyncKnownMesh(endpoint_at(shop.port))
        async with session(mesh) as http:
            async with http.ws_connect("mesh://orders/socket") as socket:
                await socket.send_str("hello")
                assert (await socket.receive_str()) == "HELLO"
                assert mesh.in_flight == 1
            assert mesh.in_flight == 0


async def test_faults_that_the_policy_asks_for_look_like_the_librarys_own(port: int) -> None:
    for status, error in (
        ("connect-failure", aiohttp.ConnectionTimeoutError),
        ("DEADLINE_EXCEEDED", aiohttp.ServerTimeoutError),
        ("UNAVAILABLE", aiohttp.ServerDisconnectedError),
    ):
        policy = f"default: {{retry: off, fault: {{abort: {{status: {status}}}}}}}"
        with pytest.raises(error, match="injected"):
            await ask(AsyncKnownMesh(endpoint_at(port), policy=policy), "GET", "mesh://orders/")
    mesh = AsyncKnownMesh(endpoint_at(port), policy="default: {retry: off, fault: {abort: {status: 503}}}")
    async with session(mesh) as http, http.get("mesh://orders/") as answer:
        assert (answer.status, await answer.text()) == (503, "injected by the service's policy")
        assert answer.headers["Content-Type"] == "text/plain"


async def test_an_answer_that_was_kept_is_given_when_there_is_no_new_one() -> None:
    policy = "default: {retry: off, fallback: {cache: {max_age: 1m}}}"
    async with served() as shop:
        mesh = AsyncKnownMesh(endpoint_at(shop.port), policy=policy)
        async with session(mesh) as http:
            async with http.get("mesh://orders/") as answer:
                assert await answer.json() == {"n": 1, "body": ""}
            shop.statuses = [503]
            async with http.get("mesh://orders/") as answer:
                assert await answer.json() == {"n": 1, "body": ""}
                assert answer.headers["age"] == "0"
                assert answer.trimtab is not None  # type: ignore[attr-defined]
                assert answer.trimtab.fallback == "cache"  # type: ignore[attr-defined]
            async with http.get("mesh://orders/") as answer:
                assert [chunk async for chunk in answer.content.iter_any()] == [b'{"n": 3, "body": ""}']
        gc.collect()
    assert mesh.in_flight == 0


async def test_a_fixed_answer_can_be_read_in_every_way(port: int) -> None:
    policy = "default: {retry: off, fault: {abort: {status: 503}}, fallback: {value: {orders: []}}}"
    async with session(AsyncKnownMesh(endpoint_at(port), policy=policy)) as http:
        async with http.get("mesh://orders/") as answer:
            assert await answer.json() == {"orders": []}
        async with http.get("mesh://orders/") as answer:
            assert [chunk async for chunk in answer.content.iter_any()] == [b'{"orders": []}']
        async with http.get("mesh://orders/") as answer:
            assert answer.ok


async def test_middlewares_of_ones_own_see_each_call_once(port: int) -> None:
    seen: list[str] = []

    async def note(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        seen.append(request.method)
        return await handler(request)

    mesh = AsyncKnownMesh(refusing_endpoint("dead"), endpoint_at(port))
    async with session(mesh, middlewares=[note]) as http, http.get("mesh://orders/") as answer:
        assert answer.status == 200
    assert seen == ["GET"]


async def test_other_urls_of_the_session_are_left_alone(port: int) -> None:
    mesh = AsyncKnownMesh()
    answer, seen = await ask(mesh, "GET", f"http://127.0.0.1:{port}/plain#there")
    assert seen["path"] == "/plain"
    assert answer.trimtab is None
    assert mesh.asked == []
