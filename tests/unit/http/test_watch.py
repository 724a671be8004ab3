from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from controlplane.http.watch import Watches

INSTANCES = "/v1/namespaces/default/services/orders/instances"


class Reader:
    """The far end of an event stream, over bare ASGI: it decides when it reads and when it leaves."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.reading = asyncio.Event()
        self.reading.set()
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended = asyncio.Event()
        self._left = asyncio.Event()

    def leave(self) -> None:
        self._left.set()

    async def receive(self) -> dict[str, Any]:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        await self.reading.wait()
        if message["body"]:
            self.chunks.put_nowait(message["body"])
        if not message.get("more_body", False):
            self.ended.set()

    async def chunk(self) -> str:
        async with asyncio.timeout(5):
            return (await self.chunks.get()).decode()

    async def event(self) -> tuple[str, dict[str, Any]]:
        """The next event, skipping keep-alives."""
        while (text := await self.chunk()).startswith(":"):
            continue
        id, kind, data = text.strip().split("\n")
        body = json.loads(data.removeprefix("data: "))
        assert id == f"id: {body['revision']}"
        return kind.removeprefix("event: "), body


@asynccontextmanager
async def watching(app: Any, path: str, query: str = "watch=true") -> AsyncIterator[Reader]:
    reader = Reader()
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": query.encode(), "headers": [], "scheme": "http", "server": ("test", 80), "client": ("t", 1),
    }  # fmt: skip
    task = asyncio.create_task(app(scope, reader.receive, reader.send))
    try:
        yield reader
    finally:
        reader.leave()
        async with asyncio.timeout(5):
            await task


async def test_a_watch_sends_everything_then_each_change(orders, api: httpx.AsyncClient) -> None:
    async with watching(orders.app(), INSTANCES) as reader:
        kind, body = await reader.event()
        assert (kind, [item["id"] for item in body["items"]]) == ("snapshot", ["a", "b", "c"])
        assert reader.headers["content-type"].startswith("text/event-stream")
        assert "content-length" not in reader.headers

        revision = (await api.post(f"{INSTANCES}/a:drain")).json()["revision"]
        kind, body = await reader.event()
        assert (kind, body["revision"], body["removed"]) == ("change", revision, [])
        assert [(item["id"], item["health"]["value"]) for item in body["changed"]] == [("a", "DRAINING")]


async def test_a_watch_tells_who_came_and_who_is_gone(orders) -> None:
    async with watching(orders.app(), INSTANCES) as reader:
        await reader.event()
        await orders.register(id="d")
        assert [item["id"] for item in (await reader.event())[1]["changed"]] == ["d"]
        [gone] = [stored for stored in orders.view.records() if stored.ref.path[-1] == "a"]
        await orders.ledger.store.revoke(gone.lease)
        assert (await reader.event())[1]["removed"] == ["namespaces/default/services/orders/instances/a"]


async def test_a_watch_of_one_service_is_not_woken_by_another(orders) -> None:
    async with watching(orders.app(), INSTANCES) as reader:
        await reader.event()
        await orders.register(service="payments", id="p")
        await orders.register(id="d")
        assert [item["id"] for item in (await reader.event())[1]["changed"]] == ["d"]


async def test_an_intent_that_changes_nothing_for_clients_is_told_all_the_same(orders, api: httpx.AsyncClient) -> None:
    async with watching(orders.app(), INSTANCES) as reader:
        await reader.event()
        await api.post(f"{INSTANCES}/c:drain")  # still starting: UNHEALTHY with or without it
        [changed] = (await reader.event())[1]["changed"]
        assert (changed["id"], changed["desired"]["drain"], changed["health"]["value"]) == ("c", True, "UNHEALTHY")


async def test_what_was_missed_in_a_gap_is_told_by_the_next_listing(orders) -> None:
    async with watching(orders.app(), INSTANCES) as reader:
        await reader.event()
        kept = [stored for stored in orders.view.records() if stored.ref.path[-1] != "a"]
        orders.reconciler._step(orders.view.revision, orders.view.load(orders.view.revision, kept), [])
        assert (await reader.event())[1]["removed"] == ["namespaces/default/services/orders/instances/a"]


async def test_a_resource_may_be_watched_before_it_exists(house) -> None:
    async with watching(house.app(), f"{INSTANCES}/late") as reader:
        assert (await reader.event())[1]["items"] == []
        await house.register(id="late")
        assert [item["id"] for item in (await reader.event())[1]["changed"]] == ["late"]


async def test_policies_are_watched_alone_and_together(house, api: httpx.AsyncClient) -> None:
    below = "/v1/namespaces/shop/policies"
    document = "{apiVersion: trimtab/v1, kind: ServicePolicy, metadata: {name: NAME, namespace: shop}, spec: {}}"
    headers = {"Content-Type": "application/yaml", "If-None-Match": "*"}
    async with watching(house.app(), f"{below}/orders") as one, watching(house.app(), below) as all_of_them:
        await one.event()
        await all_of_them.event()
        for name in ("*", "orders"):
            created = await api.put(f"{below}/{name}", content=document.replace("NAME", f'"{name}"'), headers=headers)
            assert created.status_code == 201
            assert [item["service"] for item in (await all_of_them.event())[1]["changed"]] == [name]
        [changed] = (await one.event())[1]["changed"]
        assert (changed["service"], changed["document"]["spec"]) == ("orders", {})
        await api.delete(f"{below}/orders", headers={"If-Match": "*"})
        assert (await one.event())[1]["removed"] == ["namespaces/shop/policies/orders"]


async def test_a_configuration_is_watched_with_its_content(house, api: httpx.AsyncClient) -> None:
    path = "/v1/namespaces/default/configs/shop/app.yaml"
    async with (
        watching(house.app(), path) as one,
        watching(house.app(), "/v1/namespaces/default/configs") as all_of_them,
    ):
        await one.event()
        await all_of_them.event()
        await api.put(path, json={"format": "text", "content": "hi"}, headers={"If-None-Match": "*"})
        assert (await one.event())[1]["changed"][0]["content"] == "hi"
        assert "content" not in (await all_of_them.event())[1]["changed"][0]


async def test_clients_are_watched_by_what_matters_of_them(
    house, connected: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.http.fleet.WATCH_INTERVAL_S", 0.02)
    connected("n1", last_heartbeat_age=0.1)
    async with watching(house.app(), "/v1/clients") as reader:
        assert [item["node"] for item in (await reader.event())[1]["items"]] == ["n1"]
        (known,) = house.clients._streams
        house.clients.remove(known)
        connected("n1", last_heartbeat_age=0.9)  # only older: nothing to tell
        connected("n2")
        assert [item["node"] for item in (await reader.event())[1]["changed"]] == ["n2"]


async def test_a_slow_reader_skips_to_the_newest_and_holds_up_nobody(orders, api: httpx.AsyncClient) -> None:
    async with watching(orders.app(), INSTANCES) as slow:
        await slow.event()
        slow.reading.clear()
        for weight in range(1, 30):
            await api.put(f"{INSTANCES}/a/weight", json={"weight": weight})
        slow.reading.set()
        events = 0
        weight = 0
        while weight != 29:
            weight = (await slow.event())[1]["changed"][0]["weight"]["value"]
            events += 1
        assert events <= 3


async def test_a_quiet_watch_says_that_it_is_alive(house) -> None:
    watches = Watches(house.reconciler, house.stopping, keepalive=0.02)
    async with _followed(house, watches) as reader:
        assert (await reader.event())[0] == "snapshot"
        assert await reader.chunk() == ": still here\n\n"


async def test_a_reader_that_does_not_read_is_cut_off(orders) -> None:
    watches = Watches(orders.reconciler, orders.stopping, write_deadline=0.05)
    async with _followed(orders, watches) as reader:
        await reader.event()
        reader.reading.clear()
        await orders.register(id="d")
        async with asyncio.timeout(5):
            while watches.open:
                await asyncio.sleep(0.01)
        assert not reader.ended.is_set()


async def test_watches_end_when_the_server_stops(orders) -> None:
    async with watching(orders.app(), INSTANCES) as reader:
        await reader.event()
        orders.stopping.set()
        async with asyncio.timeout(5):
            await reader.ended.wait()


async def test_a_watch_leaves_nothing_behind_when_its_reader_leaves(orders) -> None:
    before = asyncio.all_tasks()
    async with watching(orders.app(), INSTANCES) as reader:
        await reader.event()
    assert asyncio.all_tasks() == before


async def test_too_many_watches_are_refused_not_queued(orders) -> None:
    watches = Watches(orders.reconciler, orders.stopping, limit=1)
    async with _followed(orders, watches) as reader:
        await reader.event()
        async with _followed(orders, watches) as refused:
            async with asyncio.timeout(5):
                await refused.ended.wait()
            assert refused.status == 429
            assert "request.flood" in await refused.chunk()


@asynccontextmanager
async def _followed(house: Any, watches: Watches) -> AsyncIterator[Reader]:
    """One watch of all instances, through an application with these ``watches``."""
    from fastapi import FastAPI

    from controlplane.http import catalogue, problem

    app = FastAPI()
    router = catalogue.router(house.view, object(), watches)  # type: ignore[arg-type]
    app.include_router(router)
    problem.install(app, [router])
    async with watching(app, INSTANCES) as reader:
        yield reader
