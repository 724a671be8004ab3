"""What a server lets in, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults

import httpx
from trimtab.calling.context import remaining
from trimtab.servers.asgi import MeshServer
from trimtab.servers.wsgi import MeshWsgi
from trimtab.testing import FakeAsyncMesh, FakeMesh

Answer = tuple[str, dict[str, str]]


def get(app: MeshWsgi, **headers: str) -> Answer:
    """Status and headers of an answer."""
    answers: list[Answer] = []
    environ: dict[str, Any] = {f"HTTP_TRIMTAB_{name.upper()}": value for name, value in headers.items()}
    setup_testing_defaults(environ)
    body = app(environ, lambda status, told: answers.append((status, dict(told))))
    b"".join(body)
    if hasattr(body, "close"):
        body.close()
    return answers[0]


def hello(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Remaining", str(remaining()))])
    return [b"hello"]


def test_a_rate_limit_counts_virtual_time(fake_mesh: FakeMesh) -> None:
    fake_mesh.policy("orders", "default: {server: {limit: {rate: 1/s}}}")
    app = MeshWsgi(hello, fake_mesh, "orders")
    assert get(app)[0] == "200 OK"
    fake_mesh.clock.advance(0.5)
    status, headers = get(app)
    assert (status, headers["retry-after"]) == ("429 Too Many Requests", "1")
    fake_mesh.clock.advance(0.5)
    assert get(app)[0] == "200 OK"
    fake_mesh.policy("orders", "default: {server: {limit: {rate: 10/s}}}")
    assert get(app)[0] == "429 Too Many Requests"
    fake_mesh.clock.advance(0.1)
    assert get(app)[0] == "200 OK"


def test_who_may_wait_for_a_turn_waits_in_virtual_time(fake_mesh: FakeMesh) -> None:
    fake_mesh.policy("orders", "default: {server: {limit: {rate: 1/m, wait: 60s}}}")
    app = MeshWsgi(hello, fake_mesh, "orders")
    before = fake_mesh.clock.now()
    assert [get(app)[0] for _ in range(3)] == ["200 OK"] * 3
    assert round(fake_mesh.clock.now() - before, 6) == 120.0


def test_calls_inherit_the_time_that_their_caller_gave_them(fake_mesh: FakeMesh) -> None:
    app = MeshWsgi(hello, fake_mesh, "orders")
    assert get(app, timeout_ms="500")[1]["Remaining"] == "0.5"
    assert get(app, timeout_ms="0")[0] == "504 Gateway Timeout"


async def test_a_queue_is_waited_in_for_virtual_time(fake_async_mesh: FakeAsyncMesh) -> None:
    fake_async_mesh.policy("orders", "default: {server: {concurrency: 1, queue: 2, wait: 10s}}")
    clock = fake_async_mesh.clock

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await clock.pause(6.0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    transport = httpx.ASGITransport(MeshServer(slow, fake_async_mesh, "orders"))
    async with httpx.AsyncClient(transport=transport, base_url="http://orders.test") as http:
        assert (await http.get("/")).status_code == 200  # the first call opens the gate, in a thread
        before = clock.now()
        answers = await asyncio.gather(*(http.get("/") for _ in range(3)))
    # The second begins after 6 s; the third would after 12 s, and waits no longer than 10.
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503]
    assert clock.now() - before == 12.0
