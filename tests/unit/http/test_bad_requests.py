from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from controlplane.http.gate import MAX_BODY_BYTES

A = "/v1/namespaces/default/services/orders/instances/a"
PATH = "/v1/namespaces/default/configs/shop/app.yaml"


def places(answer: httpx.Response) -> list[str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return [error["path"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"weight": 1, "wieght": 2}, "wieght"),
        ({"weight": "50"}, "weight"),
        ({"weight": 50.0}, "weight"),
        ({"weight": True}, "weight"),
        ({"weight": -1}, "weight"),
        ({"weight": 65536}, "weight"),
        ({"weight": None}, "weight"),
        ({}, "weight"),
        ([], "body"),
    ],
)
async def test_a_wrong_body_is_refused_with_the_place(
    api: httpx.AsyncClient, orders: object, body: Any, path: str
) -> None:
    answer = await api.put(f"{A}/weight", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "request.invalid")
    assert places(answer) == [path]


async def test_every_wrong_place_is_named_at_once(api: httpx.AsyncClient) -> None:
    answer = await api.put(PATH, json={"format": 3, "contents": ""}, headers={"If-None-Match": "*"})
    assert sorted(places(answer)) == ["content", "contents", "format"]


async def test_an_unknown_format_is_refused_with_those_that_there_are(api: httpx.AsyncClient) -> None:
    answer = await api.put(PATH, json={"format": "ini", "content": ""}, headers={"If-None-Match": "*"})
    assert places(answer) == ["format"]
    assert "toml" in answer.json()["errors"][0]["hint"]


async def test_a_body_that_is_no_json_is_malformed(api: httpx.AsyncClient, orders: object) -> None:
    answer = await api.put(f"{A}/weight", content=b'{"weight": 5', headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed")
    assert "character 12" in answer.json()["detail"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"null", b"[" * 100_000])
async def test_garbage_in_a_body_never_fails_the_server(api: httpx.AsyncClient, orders: object, content: bytes) -> None:
    answer = await api.put(f"{A}/weight", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["code"] in {"request.invalid", "request.malformed"}


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("page_size=0", "query.page_size"),
        ("page_size=1001", "query.page_size"),
        ("page_size=many", "query.page_size"),
        ("page_token=!!!", "query.page_token"),
        ("page_token=b3RoZXIKeA", "query.page_token"),
        ("pagesize=3", "query.pagesize"),
        ("watch=perhaps", "query.watch"),
        ("watch=true&page_size=5", "query.page_size"),
    ],
)
async def test_a_wrong_query_is_refused_with_the_place(api: httpx.AsyncClient, query: str, path: str) -> None:
    answer = await api.get(f"/v1/namespaces/default/services?{query}")
    assert answer.status_code == 400
    assert places(answer) == [path]


async def test_no_operation_swallows_a_query_that_it_does_not_know(house) -> None:
    names = {"namespace": "default", "service": "orders", "id": "a", "app": "shop", "file": "f"}
    asked = 0
    async with house.http() as client:
        routes = [route for route in _routes(house.app()) if route.path != "/metrics"]
        for route in routes:
            for method in route.methods:
                body = {"weight": 1} if route.path.endswith("weight") else {"format": "text", "content": ""}
                json = body if method == "PUT" else None
                answer = await client.request(method, route.path.format(**names) + "?nonsense=1", json=json)
                assert (answer.status_code, places(answer)) == (400, ["query.nonsense"]), (method, route.path)
                asked += 1
    assert asked >= 16


@pytest.mark.parametrize("name", ["Orders", "-a", "a" * 64, "a_b", "a%20b", "%0a", "ä"])
async def test_a_name_that_cannot_be_is_refused_by_the_cores_rule(api: httpx.AsyncClient, name: str) -> None:
    answer = await api.get(f"/v1/namespaces/{name}/services")
    assert answer.status_code == 400
    assert places(answer) == ["namespace"]
    assert "1 to 63" in answer.json()["errors"][0]["hint"]


async def test_intent_takes_no_precondition_rather_than_ignoring_it(api: httpx.AsyncClient, orders: object) -> None:
    answer = await api.post(f"{A}:drain", headers={"If-Match": '"1"'})
    assert answer.status_code == 400
    assert places(answer) == ["header.If-Match"]


async def test_an_actor_that_cannot_be_shown_is_refused(api: httpx.AsyncClient, orders: object) -> None:
    for actor in (b"\x07bell", b"x" * 129):
        answer = await api.post(f"{A}:drain", headers={b"Trimtab-Actor": actor})
        assert answer.status_code == 400
        assert places(answer) == ["header.trimtab-actor"]


async def test_a_path_or_method_that_is_not_there_is_a_problem_too(api: httpx.AsyncClient) -> None:
    missing = await api.get("/v1/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "resource.not_found")
    wrong = await api.patch("/v1/namespaces")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "request.method")
    assert wrong.headers["allow"] == "GET"
    assert (await api.post(PATH)).headers["allow"] == "DELETE, GET, PUT"


async def test_a_body_beyond_the_bound_is_cut_off_while_it_comes(api: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 64 * MAX_BODY_BYTES:
            sent += 64 * 1024
            yield b"x" * 64 * 1024

    answer = await api.put(PATH, content=endless(), headers={"If-None-Match": "*"})
    assert (answer.status_code, answer.json()["code"]) == (413, "request.too_large")
    assert sent <= MAX_BODY_BYTES + 128 * 1024
    assert answer.headers["connection"] == "close"


async def test_a_body_that_announces_too_much_is_not_even_read(api: httpx.AsyncClient) -> None:
    answer = await api.put(PATH, content=b"{}", headers={"Content-Length": str(MAX_BODY_BYTES + 1)})
    assert answer.status_code == 413


async def test_bodies_of_all_requests_together_are_bounded_and_given_back(
    house, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.http.gate.MAX_HELD_BYTES", 1000)
    held, more = asyncio.Event(), asyncio.Event()

    async def slow() -> Any:
        yield b" " * 800
        held.set()
        await more.wait()
        yield b"{}"

    async with house.http() as client:
        first = asyncio.create_task(client.put(PATH, content=slow()))
        async with asyncio.timeout(10):
            await held.wait()
        second = await client.put(PATH, content=b" " * 800)
        assert second.status_code == 429
        assert (second.json()["code"], second.headers["retry-after"]) == ("request.flood", "1")
        more.set()
        assert (await first).status_code == 400
        assert (await client.put(PATH, content=b" " * 800)).status_code == 400


async def test_a_body_that_never_arrives_is_given_up(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.http.gate.BODY_DEADLINE_S", 0.05)

    async def stuck() -> Any:
        yield b"{"
        await asyncio.Event().wait()

    async with house.http() as client:
        answer = await client.put(PATH, content=stuck())
    assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed")


async def test_a_failure_inside_is_told_without_its_innards(house, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def broken() -> list[str]:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(house.view, "namespaces", broken)
    async with house.http() as client:
        with caplog.at_level(logging.CRITICAL, logger="controlplane.http.gate"):
            answer = await client.get("/v1/namespaces", headers={"X-Request-Id": "req-1"})
    assert (answer.status_code, answer.json()["code"]) == (500, "server.internal")
    assert "42" not in answer.text
    assert answer.json()["request_id"] == "req-1" == answer.headers["x-request-id"]


async def test_every_answer_carries_a_request_id_and_a_bad_one_is_replaced(api: httpx.AsyncClient) -> None:
    given = await api.get("/v1/namespaces", headers={"X-Request-Id": "mine.7"})
    assert given.headers["x-request-id"] == "mine.7"
    replaced = await api.get("/v1/namespaces", headers={"X-Request-Id": "x" * 65})
    assert len(replaced.headers["x-request-id"]) == 32


def _routes(app: Any) -> list[APIRoute]:
    found: list[APIRoute] = []
    pending = list(app.routes)
    while pending:
        route = pending.pop()
        if isinstance(route, APIRoute):
            found.append(route)
        else:
            pending += getattr(getattr(route, "original_router", route), "routes", [])
    return found
