"""Which answers are kept for a fallback, and to whom they are given again."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import requests
from trimtab.testing import FakeAsyncMesh, Reply
from trimtab.testing.script import Request

Get = Callable[[dict[str, str]], Awaitable[tuple[int, str]]]

POLICY = "default: {retry: off, fallback: {cache: 1h}}"


async def over_httpx(mesh: FakeAsyncMesh, headers: dict[str, str]) -> tuple[int, str]:
    async with mesh.http_client() as http:
        answer: httpx.Response = await http.get("mesh://orders/me", headers=headers)
        return answer.status_code, answer.text


async def over_requests(mesh: FakeAsyncMesh, headers: dict[str, str]) -> tuple[int, str]:
    with requests.Session() as session:
        session.mount("mesh://", mesh.sync.requests_adapter())
        answer = session.get("mesh://orders/me", headers=headers)
        return answer.status_code, answer.text


async def over_aiohttp(mesh: FakeAsyncMesh, headers: dict[str, str]) -> tuple[int, str]:
    async with mesh.aiohttp_session() as session, session.get("mesh://orders/me", headers=headers) as answer:
        return answer.status, await answer.text()


@pytest.fixture(params=[over_httpx, over_requests, over_aiohttp])
def get(request: pytest.FixtureRequest, fake_async_mesh: FakeAsyncMesh) -> Get:
    fake_async_mesh.add("orders", "10.0.0.1:8000")
    fake_async_mesh.policy("orders", POLICY)
    return lambda headers: request.param(fake_async_mesh, headers)


class Orders:
    """Answers with what it was asked by ``name``, until it is ``away``."""

    def __init__(self, mesh: FakeAsyncMesh, name: str, **headers: str) -> None:
        self.away = False
        self._name, self._headers = name, headers
        mesh.respond("orders", self._answer)

    def _answer(self, request: Request) -> Reply:
        if self.away:
            return Reply(status=503)
        return Reply(body=request.headers.get(self._name, ""), headers=self._headers)


@pytest.mark.parametrize("name", ["authorization", "cookie", "accept-language", "range"])
async def test_an_answer_is_for_those_who_ask_for_the_same(get: Get, fake_async_mesh: FakeAsyncMesh, name: str) -> None:
    orders = Orders(fake_async_mesh, name)
    assert await get({name: "ann"}) == (200, "ann")
    orders.away = True
    assert await get({name: "ann", "x-request-id": "2"}) == (200, "ann")
    assert (await get({name: "bob"}))[0] == 503
    assert (await get({}))[0] == 503


@pytest.mark.parametrize(
    "answer",
    [
        {"cache-control": "private, No-Store"},
        {"vary": "*"},
        {"vary": "Accept, X-Tenant"},
        {"cache-control": "private"},
        {"set-cookie": "session=ann"},
    ],
)
async def test_what_may_not_be_kept_is_not(get: Get, fake_async_mesh: FakeAsyncMesh, answer: dict[str, str]) -> None:
    orders = Orders(fake_async_mesh, "x-tenant", **answer)
    assert (await get({"x-tenant": "ann"}))[0] == 200
    orders.away = True
    assert (await get({"x-tenant": "ann"}))[0] == 503


async def test_what_varies_by_what_is_known_is_kept(get: Get, fake_async_mesh: FakeAsyncMesh) -> None:
    orders = Orders(fake_async_mesh, "cookie", vary="Cookie, Accept-Encoding")
    assert (await get({"cookie": "a=1"}))[0] == 200
    orders.away = True
    assert await get({"cookie": "a=1"}) == (200, "a=1")


async def test_a_private_answer_is_kept_for_who_says_who_asks(get: Get, fake_async_mesh: FakeAsyncMesh) -> None:
    orders = Orders(fake_async_mesh, "authorization", **{"cache-control": "private"})
    assert (await get({"authorization": "ann"}))[0] == 200
    orders.away = True
    assert await get({"authorization": "ann"}) == (200, "ann")


async def test_who_wants_nothing_stored_has_nothing_stored(get: Get, fake_async_mesh: FakeAsyncMesh) -> None:
    orders = Orders(fake_async_mesh, "accept")
    assert (await get({"cache-control": "no-store"}))[0] == 200
    orders.away = True
    assert (await get({}))[0] == 503


async def test_that_nothing_was_modified_is_no_answer_for_others(get: Get, fake_async_mesh: FakeAsyncMesh) -> None:
    fake_async_mesh.respond("orders", Reply(status=304))
    assert (await get({"if-none-match": '"1"'}))[0] == 304
    fake_async_mesh.respond("orders", Reply(status=503))
    assert (await get({}))[0] == 503


async def test_what_one_library_keeps_is_not_for_another_which_may_read_it_otherwise(
    fake_async_mesh: FakeAsyncMesh,
) -> None:
    fake_async_mesh.add("orders", "10.0.0.1:8000")
    fake_async_mesh.policy("orders", POLICY)
    packed = Reply(body=gzip.compress(b"hello"), headers={"content-encoding": "gzip"})
    fake_async_mesh.respond("orders", packed)
    assert await over_httpx(fake_async_mesh, {}) == (200, "hello")
    fake_async_mesh.respond("orders", Reply(status=503))
    assert await over_httpx(fake_async_mesh, {}) == (200, "hello")
    assert (await over_aiohttp(fake_async_mesh, {}))[0] == 503
    assert (await over_requests(fake_async_mesh, {}))[0] == 503


async def test_an_injected_timeout_is_one(fake_async_mesh: FakeAsyncMesh) -> None:
    mesh = fake_async_mesh
    mesh.add("orders", "10.0.0.1:8000")
    mesh.policy("orders", "default: {retry: off, fault: {abort: DEADLINE_EXCEEDED}}")
    kinds: list[tuple[Any, type[Exception]]] = [
        (over_httpx, httpx.TimeoutException),
        (over_requests, requests.Timeout),
        (over_aiohttp, asyncio.TimeoutError),
    ]
    for ask, kind in kinds:
        with pytest.raises(kind):
            await ask(mesh, {})
