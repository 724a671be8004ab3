"""mesh:// through httpx and httpx2, blocking and asynchronous: one set of sentences for all four."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from trimtab.calling.in_use import IDLE
from trimtab.core.endpoints import Tally
from trimtab.errors import NoEndpoints
from trimtab.http.httpx import async_client, async_transport, client, transport

from tests.unit.sdk_http.known_mesh import AsyncKnownMesh, KnownMesh, endpoint_at, in_child, origin, refusing_endpoint

LIBRARIES: dict[str, Any] = {"httpx": httpx, "httpx2": httpx2}
SPARE = "default: {retry: off, fallback: {service: spare}}"
pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with origin() as port:
        yield port


class Caller:
    """Both kinds of client behind one asynchronous face."""

    def __init__(self, library: Any, blocking: bool) -> None:
        self.library = library
        self.blocking = blocking

    def mesh(self, *endpoints: Any, **options: Any) -> KnownMesh:
        return (KnownMesh if self.blocking else AsyncKnownMesh)(*endpoints, **options)

    @asynccontextmanager
    async def client(self, mesh: KnownMesh, **options: Any) -> AsyncIterator[Any]:
        name = self.library.__name__
        if self.blocking:
            with client(mesh, library=name, **options) as http:
                yield Awaiting(http)
        else:
            async with async_client(mesh, library=name, **options) as http:
                yield http


class Awaiting:
    """A blocking client whose calls can be awaited."""

    def __init__(self, http: Any) -> None:
        self._http = http

    async def request(self, *args: Any, **options: Any) -> Any:
        return await asyncio.to_thread(self._http.request, *args, **options)

    def build_request(self, *args: Any, **options: Any) -> Any:
        return self._http.build_request(*args, **options)

    async def send(self, *args: Any, **options: Any) -> Any:
        return await asyncio.to_thread(self._http.send, *args, **options)

    @asynccontextmanager
    async def stream(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        with self._http.stream(*args, **options) as response:
            yield response


@pytest.fixture(params=["httpx blocking", "httpx async", "httpx2 blocking", "httpx2 async"])
def caller(request: pytest.FixtureRequest) -> Caller:
    name, kind = request.param.split()
    return Caller(LIBRARIES[name], kind == "blocking")


async def test_a_call_goes_to_the_endpoint_that_was_picked_and_keeps_the_name_of_its_service(
    caller: Caller, port: int
) -> None:
    mesh = caller.mesh(endpoint_at(port))
    async with caller.client(mesh) as http:
        answer = await http.request("POST", "mesh://orders/v1/a%20b?x=1&y=%2F", content=b"hello", params=None)
    assert isinstance(answer, caller.library.Response)
    seen = answer.json()
    assert (seen["host"], seen["path"], seen["method"], seen["body"]) == (
        "orders",
        "/v1/a%20b?x=1&y=%2F",
        "POST",
        "hello",
    )
    assert str(answer.request.url).startswith("mesh://orders/")
    assert answer.extensions["trimtab"].endpoint.port == port
    assert mesh.asked == [("orders", None)]


async def test_a_url_without_a_path_asks_for_the_root(caller: Caller, port: int) -> None:
    async with caller.client(caller.mesh(endpoint_at(port))) as http:
        assert (await http.request("GET", "mesh://orders")).json()["path"] == "/"
        assert (await http.request("GET", "mesh://orders?page=2")).json()["path"] == "/?page=2"


async def test_a_namespace_stands_behind_the_service(caller: Caller, port: int) -> None:
    mesh = caller.mesh(endpoint_at(port))
    async with caller.client(mesh) as http:
        assert (await http.request("GET", "mesh://orders.shop/")).json()["host"] == "orders.shop"
    assert mesh.asked == [("orders", "shop")]


async def test_a_refused_connection_moves_on_to_another_endpoint(caller: Caller, port: int) -> None:
    mesh = caller.mesh(refusing_endpoint("dead"), refusing_endpoint("dead too"), endpoint_at(port, "alive"))
    async with caller.client(mesh) as http:
        answer = await http.request("POST", "mesh://orders/", content=_chunks(caller))
    assert answer.json()["body"] == "one two"
    trace = answer.extensions["trimtab"]
    assert [attempt.endpoint.id for attempt in trace.attempts] == ["dead", "dead too", "alive"]
    assert mesh.outcomes == [("dead", False), ("dead too", False), ("alive", True)]


def _chunks(caller: Caller) -> Any:
    if caller.blocking:
        return iter([b"one ", b"two"])

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"one ", b"two"):
            yield chunk

    return chunks()


async def test_three_refused_connections_end_the_call_and_name_the_endpoints(caller: Caller) -> None:
    dead = [refusing_endpoint(f"dead-{n}") for n in range(5)]
    mesh = caller.mesh(*dead)
    async with caller.client(mesh) as http:
        with pytest.raises(caller.library.ConnectError) as caught:
            await http.request("GET", "mesh://orders/")
    assert all(endpoint.target in str(caught.value) for endpoint in dead[:3])
    assert dead[3].target not in str(caught.value)
    assert caught.value.request.url.host == "orders"
    assert mesh.in_flight == 0


async def test_one_endpoint_that_refuses_is_a_connect_error_not_an_empty_service(caller: Caller) -> None:
    async with caller.client(caller.mesh(refusing_endpoint("only"))) as http:
        with pytest.raises(caller.library.ConnectError, match="only") as caught:
            await http.request("GET", "mesh://orders/")
    assert not isinstance(caught.value, NoEndpoints)


async def test_no_endpoint_is_an_error_of_the_mesh_and_of_the_library(caller: Caller) -> None:
    async with caller.client(caller.mesh()) as http:
        with pytest.raises(NoEndpoints, match="no endpoint of orders is known") as caught:
            await http.request("GET", "mesh://orders/")
    assert isinstance(caught.value, caller.library.ConnectError)
    assert caught.value.service == "orders"
    assert caught.value.request.method == "GET"


async def test_a_server_that_hangs_up_on_what_must_not_be_repeated_is_not_asked_again_and_is_named(
    caller: Caller, port: int
) -> None:
    mesh = caller.mesh(endpoint_at(port), endpoint_at(port, "b"))
    async with caller.client(mesh) as http:
        with pytest.raises(caller.library.RemoteProtocolError, match=f"orders at 127.0.0.1:{port}") as caught:
            await http.request("POST", "mesh://orders/hangup")
    assert caught.value.trimtab.endpoint.id == "a"
    assert mesh.outcomes == [("a", False)]
    assert mesh.in_flight == 0


async def test_a_body_that_breaks_after_status_200_is_a_failed_call(caller: Caller, port: int) -> None:
    mesh = caller.mesh(endpoint_at(port))
    async with caller.client(mesh) as http:
        with pytest.raises(caller.library.RemoteProtocolError, match=f"orders at 127.0.0.1:{port}") as caught:
            await http.request("GET", "mesh://orders/broken")
    assert caught.value.trimtab.endpoint.id == "a"
    assert mesh.outcomes == [("a", False)]
    assert mesh.in_flight == 0


async def test_a_server_error_is_an_answer_and_counts_as_a_failure(caller: Caller, port: int) -> None:
    mesh = caller.mesh(endpoint_at(port))
    async with caller.client(mesh) as http:
        assert (await http.request("GET", "mesh://orders/fail")).status_code == 503
    assert set(mesh.outcomes) == {("a", False)}


async def test_a_call_is_in_flight_until_its_body_is_closed(caller: Caller, port: int) -> None:
    mesh = caller.mesh(endpoint_at(port))
    async with caller.client(mesh) as http:
        async with http.stream("GET", "mesh://orders/") as answer:
            assert answer.status_code == 200
            assert mesh.in_flight == 1
        assert mesh.in_flight == 0
    assert mesh.outcomes == [("a", True)]


async def test_an_answer_that_is_dropped_unread_is_no_longer_in_flight(caller: Caller, port: int) -> None:
    mesh = caller.mesh(endpoint_at(port))
    async with caller.client(mesh) as http:
        assert (await http.send(http.build_request("GET", "mesh://orders/"), stream=True)).status_code == 200
        async with asyncio.timeout(10):
            while mesh.in_flight:  # a thread may hold it for a moment
                await asyncio.sleep(0.01)
                gc.collect()  # the library's responses hold themselves
    assert mesh.outcomes == [("a", True)]


async def test_another_service_is_not_asked_with_a_body_that_was_sent_already(caller: Caller, port: int) -> None:
    mesh = caller.mesh(endpoint_at(port), policy=SPARE)
    async with caller.client(mesh) as http:
        with pytest.raises(caller.library.TransportError):
            await http.request("POST", "mesh://orders/hangup", content=_chunks(caller))
        assert mesh.asked == [("orders", None)]
        with pytest.raises(caller.library.TransportError):
            await http.request("POST", "mesh://orders/hangup", content=b"all of it")
        assert mesh.asked[1:] == [("orders", None), ("spare", None)]
    assert mesh.in_flight == 0


async def test_another_service_is_asked_with_a_body_that_nobody_was_sent(caller: Caller, port: int) -> None:
    mesh = caller.mesh(refusing_endpoint("dead"), policy=SPARE)
    async with caller.client(mesh) as http:
        with pytest.raises(caller.library.ConnectError):
            await http.request("POST", "mesh://orders/", content=_chunks(caller))
    assert mesh.asked == [("orders", None), ("spare", None)]


async def test_connections_to_an_endpoint_are_kept(caller: Caller, port: int) -> None:
    async with caller.client(caller.mesh(endpoint_at(port))) as http:
        clients = {(await http.request("GET", "mesh://orders/")).json()["client"] for _ in range(4)}
    assert len(clients) == 1


async def test_a_redirect_to_the_name_of_the_service_stays_in_the_mesh(caller: Caller, port: int) -> None:
    mesh = caller.mesh(endpoint_at(port))
    async with caller.client(mesh, follow_redirects=True) as http:
        assert (await http.request("GET", "mesh://orders/moved")).json()["path"] == "/new?x=1"
        assert (await http.request("GET", "mesh://orders/relative")).json()["path"] == "/new"
    assert mesh.in_flight == 0


@pytest.mark.parametrize("url", ["mesh://orders:80/", "mesh://a.b.c/", "mesh://or_ders/"])
async def test_a_url_that_names_no_service_is_refused_with_the_place(caller: Caller, url: str) -> None:
    mesh = caller.mesh()
    async with caller.client(mesh) as http:
        with pytest.raises(caller.library.UnsupportedProtocol, match="mesh"):
            await http.request("GET", url)
    assert mesh.asked == []


async def test_an_instance_that_says_https_is_spoken_to_over_tls(caller: Caller, port: int) -> None:
    mesh = caller.mesh(endpoint_at(port, scheme="https"))
    async with caller.client(mesh) as http:
        with pytest.raises(caller.library.ConnectError, match=r"(?i)ssl|tls"):
            await http.request("GET", "mesh://orders/")
    async with caller.client(mesh, scheme="http") as http:
        assert (await http.request("GET", "mesh://orders/")).status_code == 200


async def test_a_cancelled_call_is_no_longer_in_flight(port: int) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    held = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    mesh = AsyncKnownMesh(endpoint_at(held.sockets[0].getsockname()[1]))
    async with async_client(mesh) as http:
        call = asyncio.create_task(http.get("mesh://orders/"))
        async with asyncio.timeout(10):
            while mesh.in_flight == 0:
                await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    held.close()
    await held.wait_closed()
    assert mesh.outcomes == []
    assert mesh.in_flight == 0


class Stuck(httpx.AsyncByteStream):
    """A body that takes for ever to be closed, and a pool of connections to whoever sends it."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"later"

    async def aclose(self) -> None:
        self.closing.set()
        await asyncio.Event().wait()

    async def handle_async_request(self, request: Any) -> httpx.Response:
        return httpx.Response(503, stream=self)


@pytest.mark.parametrize("policy", ["default: {fallback: {value: 1}}", "default: {retry: {on: [503], attempts: 3}}"])
async def test_a_call_that_is_cancelled_while_a_bad_answer_is_closed_holds_nothing(policy: str) -> None:
    mesh, stuck = AsyncKnownMesh(endpoint_at(1), policy=policy), Stuck()
    mounted = async_transport(mesh)
    mounted.pools.make = lambda origin: stuck
    async with httpx.AsyncClient(mounts={"mesh://": mounted}) as http:
        call = asyncio.create_task(http.get("mesh://orders/"))
        await stuck.closing.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert mesh.in_flight == 0
        now = mesh.service.pipeline("GET").now()
        mounted.pools.of(endpoint_at(2), Tally(), now + 2 * IDLE)
        assert mounted.pools.given_up == [stuck]
        mounted.pools.given_up.clear()
        mounted.pools.drain()


async def test_a_call_that_is_cancelled_while_connections_are_given_up_has_not_begun(port: int) -> None:
    mesh, stuck = AsyncKnownMesh(endpoint_at(port)), Stuck()
    mounted = async_transport(mesh)
    mounted.pools.given_up.append(stuck)
    async with httpx.AsyncClient(mounts={"mesh://": mounted}) as http:
        call = asyncio.create_task(http.get("mesh://orders/"))
        await stuck.closing.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert mesh.in_flight == 0


def test_other_urls_of_the_client_are_left_alone(port: int) -> None:
    with client(KnownMesh()) as http:
        assert http.get(f"http://127.0.0.1:{port}/plain").json()["path"] == "/plain"


def test_the_transport_mounts_on_a_client_of_ones_own(port: int) -> None:
    with httpx.Client(mounts={"mesh://": transport(KnownMesh(endpoint_at(port)))}) as http:
        assert http.get("mesh://orders/").status_code == 200


def test_a_forked_child_uses_connections_of_its_own(port: int) -> None:
    mounted = transport(KnownMesh(endpoint_at(port)))
    with httpx.Client(mounts={"mesh://": mounted}) as http:
        parents = http.get("mesh://orders/").json()["client"]
        assert in_child(lambda: http.get("mesh://orders/").json()["client"]) != parents
        assert http.get("mesh://orders/").json()["client"] == parents
