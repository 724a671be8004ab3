from __future__ import annotations

from collections.abc import Callable

import httpx

from controlplane.core.change import Write
from controlplane.core.model import Kind, Ref, Replica
from controlplane.runtime.clients import Load


async def test_a_client_is_in_step_behind_or_refusing(api: httpx.AsyncClient, connected: Callable[..., None]) -> None:
    connected("n1")
    connected("n2", behind=True)
    connected("n3", behind=True, nacks=(("config/default/shop/app.yaml", "port: not a number"),))
    items = (await api.get("/v1/clients")).json()["items"]
    assert [(item["node"], item["state"]) for item in items] == [("n1", "SYNCED"), ("n2", "STALE"), ("n3", "NACK")]
    assert items[2]["refusals"] == [{"resource": "config/default/shop/app.yaml", "reason": "port: not a number"}]


async def test_unknown_load_is_null_not_a_number(api: httpx.AsyncClient, connected: Callable[..., None]) -> None:
    connected("n1", load=Load())
    [item] = (await api.get("/v1/clients")).json()["items"]
    assert item["load"] == {"cpu": None, "memory": None, "serving": 0, "calling": 0}


async def test_clients_are_filtered_and_paged(api: httpx.AsyncClient, connected: Callable[..., None]) -> None:
    for number in range(5):
        connected(f"n{number}", namespace="shop" if number % 2 else "default")
    page = (await api.get("/v1/clients", params={"namespace": "default", "page_size": 2})).json()
    assert [item["node"] for item in page["items"]] == ["n0", "n2"]
    rest = await api.get("/v1/clients", params={"namespace": "default", "page_token": page["next_page_token"]})
    assert [item["node"] for item in rest.json()["items"]] == ["n4"]
    elsewhere = await api.get("/v1/clients", params={"page_token": page["next_page_token"]})
    assert elsewhere.status_code == 400


async def test_a_replica_that_does_not_answer_is_named(
    api: httpx.AsyncClient, house, connected: Callable[..., None]
) -> None:
    connected("n1")
    peer = Replica("r2", "10.0.0.2:7071", "10.0.0.2:7070", "0.1.0", 0.0)
    await house.write(Write(Ref(Kind.REPLICA, ("r2",)), peer))
    listing = (await api.get("/v1/clients")).json()
    assert listing["unreachable"] == ["r2"]
    assert len(listing["items"]) == 1
