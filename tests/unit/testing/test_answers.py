"""Endpoints that answer by a script: one set of sentences for every HTTP library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
from trimtab.errors import CircuitOpen, DeadlineExceeded, RateLimited, RetriesExhausted
from trimtab.testing import FakeAsyncMesh, FakeMesh, NobodyAnswers, Reply, Request
from trimtab.testing.mesh import Controls

from tests.unit.sdk_http.known_mesh import origin

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")
URL = "mesh://orders/v1/42?full=1"


class Library:
    """An HTTP library behind one asynchronous face. ``errors``: refused, broken off, too late, as it tells them."""

    def __init__(self, name: str, errors: tuple[type[Exception], ...]) -> None:
        self.name = name
        self.errors = errors

    def mesh(self) -> Controls:
        return FakeAsyncMesh() if self.name.endswith(("async", "aiohttp")) else FakeMesh()

    @asynccontextmanager
    async def get(self, mesh: Any) -> AsyncIterator[Callable[..., Any]]:
        kind = self.name.partition(" ")[0]
        if self.name == "requests":
            with requests.Session() as session:
                session.mount("mesh://", mesh.requests_adapter())

                async def get(url: str = URL, **options: Any) -> Any:
                    return session.get(url, **options)

                yield get
        elif self.name == "aiohttp":
            async with mesh.aiohttp_session() as aio:

                async def get(url: str = URL, **options: Any) -> Any:
                    async with aio.get(url, **options) as answer:
                        await answer.read()
                    return Read(answer)

                yield get
        elif self.name.endswith("async"):
            async with mesh.http_client(library=kind) as awaited:

                async def get(url: str = URL, **options: Any) -> Any:
                    return await awaited.get(url, **options)

                yield get
        else:
            with mesh.http_client(library=kind) as http:

                async def get(url: str = URL, **options: Any) -> Any:
                    return http.get(url, **options)

                yield get


class Read:
    """A response of aiohttp that was read, in the words of the others."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.status_code = answer.status
        self.headers = answer.headers
        self.text = (answer._body or b"").decode()

    def json(self) -> Any:
        return json.loads(self.text)


AIOHTTP = (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, aiohttp.ServerTimeoutError)
HTTPX = (httpx.ConnectError, httpx.ReadError, httpx.ReadTimeout)
HTTPX2 = (httpx2.ConnectError, httpx2.ReadError, httpx2.ReadTimeout)
REQUESTS = (requests.ConnectionError, requests.ConnectionError, requests.ReadTimeout)
LIBRARIES = [
    Library("httpx", HTTPX),
    Library("httpx async", HTTPX),
    Library("httpx2", HTTPX2),
    Library("httpx2 async", HTTPX2),
    Library("requests", REQUESTS),
    Library("aiohttp", AIOHTTP),
]


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.name)
def library(request: pytest.FixtureRequest) -> Library:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def mesh(library: Library) -> Controls:
    mesh = library.mesh()
    mesh.add("orders", "10.0.0.1:8000", "10.0.0.2:8000")
    mesh.policy("orders", "default: {retry: off}")
    return mesh


def in_flight(mesh: Any) -> int:
    return int(mesh.in_flight[1])


async def test_answers_come_in_their_order_and_the_last_one_stays(library: Library, mesh: Controls) -> None:
    mesh.respond(
        "orders",
        [201, Reply(body="two", headers={"X-Number": "2"}), lambda request: Reply(json={"path": request.path})],
    )
    async with library.get(mesh) as get:
        first, second, third, fourth = [await get() for _ in range(4)]
    assert first.status_code == 201
    assert (second.text, second.headers["x-number"]) == ("two", "2")
    assert third.json() == fourth.json() == {"path": "/v1/42?full=1"}
    assert in_flight(mesh) == 0


async def test_a_request_is_seen_as_it_would_be_on_the_wire(library: Library, mesh: Controls) -> None:
    mesh.policy("orders", "default: {timeout: 3s, priority: low}")
    seen: list[Request] = []
    mesh.respond("orders", lambda request: seen.append(request) or 200)
    async with library.get(mesh) as get:
        await get(headers={"X-User": "7"})
    (request,) = seen
    assert (request.service, request.method, request.path, request.body) == (
        "default/orders",
        "GET",
        "/v1/42?full=1",
        b"",
    )
    assert (request.headers["host"], request.headers["x-user"]) == ("orders", "7")
    assert (request.headers["trimtab-timeout-ms"], request.headers["trimtab-priority"]) == ("3000", "low")
    assert request.endpoint is mesh.calls("orders")[0].endpoint


async def test_one_endpoint_may_answer_otherwise(library: Library, mesh: Controls) -> None:
    mesh.policy("orders", "default: {retry: 2}")
    mesh.respond("orders", 200)
    mesh.respond("orders", ConnectionRefusedError, endpoint="10.0.0.1-8000")
    async with library.get(mesh) as get:
        for _ in range(10):
            assert (await get()).status_code == 200
    tried = {
        attempt.endpoint.id: attempt.error != ""
        for call in mesh.calls("orders")
        for attempt in call.attempts
        if attempt.endpoint
    }
    assert tried == {"10.0.0.1-8000": True, "10.0.0.2-8000": False}


@pytest.mark.parametrize(
    ("number", "error"), [(0, ConnectionRefusedError), (1, ConnectionResetError), (2, TimeoutError)]
)
async def test_failures_are_those_of_the_library(
    library: Library, mesh: Controls, number: int, error: type[Exception]
) -> None:
    mesh.remove("orders", "10.0.0.2-8000")
    mesh.respond("orders", error)
    async with library.get(mesh) as get:
        with pytest.raises(library.errors[number], match=r"10\.0\.0\.1:8000") as caught:
            await get()
    assert caught.value.__dict__["trimtab"] is mesh.calls("orders")[0]
    assert mesh.calls("orders")[0].outcome.condition == ("connect-failure", "reset", "timeout")[number]  # type: ignore[union-attr]
    assert in_flight(mesh) == 0


async def test_an_error_of_the_tests_own_stays_what_it_is(library: Library, mesh: Controls) -> None:
    mesh.respond("orders", ZeroDivisionError("mine"))
    async with library.get(mesh) as get:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await get()


async def test_retries_take_virtual_time_only(library: Library, mesh: Controls) -> None:
    mesh.policy("orders", "default: {timeout: 5m, retry: {attempts: 4, on: [503], backoff: 10s..60s}}")
    mesh.respond("orders", [503, 503, 503, 200])
    async with library.get(mesh) as get:
        assert (await get()).status_code == 200
    (call,) = mesh.calls("orders")
    assert [attempt.error for attempt in call.attempts] == ["503", "503", "503", ""]
    assert mesh.clock.now() > call.began


async def test_latency_counts_and_a_timeout_takes_its_time(library: Library, mesh: Controls) -> None:
    mesh.policy(
        "orders", "default: {timeout: {total: 10s, attempt: 1s}, retry: {attempts: 2, on: [timeout], backoff: 1ms}}"
    )
    mesh.respond("orders", [Reply(latency=0.25), Reply(latency=60.0)])
    async with library.get(mesh) as get:
        await get()
        assert mesh.clock.now() == 1000.25
        with pytest.raises(library.errors[2]) as caught:
            await get()
    assert isinstance(caught.value, RetriesExhausted)
    assert [attempt.seconds for attempt in caught.value.attempts] == pytest.approx([1.0, 1.0])  # type: ignore[attr-defined]
    assert 1002.25 <= mesh.clock.now() < 1002.26


async def test_the_deadline_of_the_whole_call_ends_it(library: Library, mesh: Controls) -> None:
    mesh.policy(
        "orders", "default: {timeout: {total: 3s, attempt: 2s}, retry: {attempts: 5, on: [timeout], backoff: 1ms}}"
    )
    mesh.respond("orders", TimeoutError)
    async with library.get(mesh) as get:
        with pytest.raises(DeadlineExceeded):
            await get()
    assert mesh.clock.now() == 1003.0
    assert len(mesh.calls("orders")[0].attempts) == 2


async def test_a_circuit_opens_is_probed_and_closes(library: Library, mesh: Controls) -> None:
    mesh.policy(
        "orders", "default: {retry: off, breaker: {scope: service, open_when: 3 in a row, open_for: 15s, probes: 2}}"
    )
    mesh.respond("orders", 503)
    async with library.get(mesh) as get:
        for _ in range(3):
            assert (await get()).status_code == 503
        with pytest.raises(CircuitOpen) as caught:
            await get()
        mesh.respond("orders", 200)
        mesh.clock.advance(caught.value.retry_after * 0.9)
        with pytest.raises(CircuitOpen):
            await get()
        mesh.clock.advance(caught.value.retry_after * 0.2)
        for _ in range(3):
            assert (await get()).status_code == 200
    assert [call.refused for call in mesh.calls("orders")] == ["", "", "", "breaker", "breaker", "", "", ""]
    assert in_flight(mesh) == 0


async def test_an_endpoint_that_fails_is_ejected_and_comes_back(library: Library, mesh: Controls) -> None:
    mesh.policy(
        "orders", "default: {retry: off, balance: round_robin, outlier: {consecutive: 2, interval: 1s, eject_for: 30s}}"
    )
    mesh.respond("orders", 200)
    mesh.respond("orders", 500, endpoint="10.0.0.1-8000")
    async with library.get(mesh) as get:
        for _ in range(4):
            await get()
        assert [(await get()).status_code for _ in range(4)] == [200] * 4
        mesh.respond("orders", 200, endpoint="10.0.0.1-8000")
        mesh.clock.advance(60)
        for _ in range(4):
            await get()
    assert {call.endpoint.id for call in mesh.calls("orders")[-4:] if call.endpoint} == {
        "10.0.0.1-8000",
        "10.0.0.2-8000",
    }


async def test_a_rate_limit_lets_calls_in_again_with_time(library: Library, mesh: Controls) -> None:
    mesh.policy("orders", "default: {limit: {rate: 1/s, burst: 2}}")
    mesh.respond("orders", 200)
    async with library.get(mesh) as get:
        await get()
        await get()
        with pytest.raises(RateLimited) as caught:
            await get()
        mesh.clock.advance(caught.value.retry_after)
        assert (await get()).status_code == 200


async def test_the_last_good_answer_has_its_age_in_virtual_seconds(library: Library, mesh: Controls) -> None:
    mesh.policy("orders", "default: {retry: off, fallback: {cache: 1h}}")
    mesh.respond("orders", [Reply(json={"total": 7}), 503])
    async with library.get(mesh) as get:
        await get()
        mesh.clock.advance(90)
        answer = await get()
        assert (answer.json(), answer.headers["age"]) == ({"total": 7}, "90")
        mesh.clock.advance(3600)
        assert (await get()).status_code == 503
    assert [(call.fallback, call.age) for call in mesh.calls("orders")] == [("", 0.0), ("cache", 90.0), ("", 0.0)]


async def test_a_fault_that_the_policy_injects_needs_no_answer(library: Library, mesh: Controls) -> None:
    mesh.policy("orders", "default: {retry: off, fault: {abort: 503}}")
    async with library.get(mesh) as get:
        assert (await get()).status_code == 503
    assert in_flight(mesh) == 0


async def test_a_request_that_nobody_answers_for_fails_the_test_whatever_the_policy(
    library: Library, mesh: Controls
) -> None:
    mesh.policy("orders", "default: {retry: 3, fallback: {value: {total: 0}}}")
    async with library.get(mesh) as get:
        with pytest.raises(
            NobodyAnswers, match=r"default/orders at 10\.0\.0\..:8000.*fake_mesh\.respond\('orders', 200\)"
        ):
            await get()
    assert len(mesh.calls("orders")[0].attempts) == 1
    assert in_flight(mesh) == 0


async def test_calls_may_go_over_the_network_to_a_real_server(library: Library, mesh: Controls) -> None:
    mesh.remove("orders")
    with origin() as port:
        mesh.add("orders", f"127.0.0.1:{port}")
        mesh.pass_through("orders")
        async with library.get(mesh) as get:
            assert (await get()).json()["path"] == "/v1/42?full=1"
    assert in_flight(mesh) == 0


async def test_services_at_one_address_are_told_apart_by_their_names(library: Library, mesh: Controls) -> None:
    mesh.add("stock", "10.0.0.1:8000")
    mesh.remove("orders", "10.0.0.2-8000")
    mesh.respond("orders", 201)
    mesh.respond("stock", 202)
    async with library.get(mesh) as get:
        assert [(await get(f"mesh://{name}/")).status_code for name in ("orders", "stock")] == [201, 202]


async def test_bodies_reach_the_script(mesh: Controls, library: Library) -> None:
    if isinstance(mesh, FakeAsyncMesh):
        async with mesh.http_client() as http:
            mesh.respond("orders", lambda request: Reply(body=request.body))
            assert (await http.post("mesh://orders/", json={"id": 1})).json() == {"id": 1}
        async with mesh.aiohttp_session() as session, session.post("mesh://orders/", json={"id": 2}) as answer:
            assert await answer.json(content_type=None) == {"id": 2}
    else:
        assert isinstance(mesh, FakeMesh)
        mesh.respond("orders", lambda request: Reply(body=request.body))
        with mesh.http_client() as http:
            assert http.post("mesh://orders/", content=b"abc").text == "abc"
        with requests.Session() as blocking:
            blocking.mount("mesh://", mesh.requests_adapter())
            assert blocking.post("mesh://orders/", data=iter([b"a", b"bc"])).text == "abc"


async def test_calls_that_are_made_together_wait_together(fake_async_mesh: FakeAsyncMesh) -> None:
    fake_async_mesh.add("orders", "10.0.0.1:8000", "10.0.0.2:8000")
    fake_async_mesh.policy("orders", "default: {concurrency: 8}")
    fake_async_mesh.respond("orders", Reply(latency=1.0))
    async with fake_async_mesh.http_client() as http:
        answers = await asyncio.gather(*(http.get(URL) for _ in range(10)), return_exceptions=True)
    assert fake_async_mesh.clock.now() == 1001.0
    assert sum(isinstance(answer, Exception) for answer in answers) == 2
    assert [call.refused for call in fake_async_mesh.calls("orders")].count("concurrency") == 2


def test_a_script_needs_an_answer(fake_mesh: FakeMesh) -> None:
    with pytest.raises(ValueError, match="at least one answer"):
        fake_mesh.respond("orders", [])
