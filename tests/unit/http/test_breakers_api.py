from __future__ import annotations

from collections.abc import Callable

import httpx

from controlplane.runtime.breakers import BreakerInfo, BreakerState

OPEN = BreakerInfo(
    node="n1",
    caller="checkout",
    caller_namespace="shop",
    replica="r1",
    namespace="shop",
    service="orders",
    endpoint="a",
    method="",
    state=BreakerState.OPEN,
    age=3.0,
    calls=20,
    failure_ratio=0.6,
    slow_ratio=0.25,
    retry_after=12.0,
)


async def test_breakers_are_told_worst_first_with_what_they_judge_by(
    api: httpx.AsyncClient, connected: Callable[..., None]
) -> None:
    closed = OPEN._replace(state=BreakerState.CLOSED, endpoint="", method="Charge", retry_after=None)
    connected("n1", closed, OPEN)
    listing = (await api.get("/v1/breakers")).json()
    assert [item["state"] for item in listing["items"]] == ["OPEN", "CLOSED"]
    worst = listing["items"][0]
    assert (worst["caller"], worst["service"], worst["endpoint"]) == ("checkout", "orders", "a")
    assert (worst["failure_ratio"], worst["slow_ratio"], worst["retry_after"]) == (0.6, 0.25, 12.0)
    assert len({item["name"] for item in listing["items"]}) == 2
    assert (listing["omitted"], listing["unreachable"]) == (0, [])


async def test_breakers_are_filtered_and_paged(api: httpx.AsyncClient, connected: Callable[..., None]) -> None:
    connected("n1", *(OPEN._replace(endpoint=f"e{number}") for number in range(3)))
    connected("n2", OPEN._replace(node="n2", service="stock"))
    query = {"namespace": "shop", "service": "orders", "page_size": 2}
    page = (await api.get("/v1/breakers", params=query)).json()
    assert [item["endpoint"] for item in page["items"]] == ["e0", "e1"]
    rest = (await api.get("/v1/breakers", params=query | {"page_token": page["next_page_token"]})).json()
    assert [item["endpoint"] for item in rest["items"]] == ["e2"]
    other = await api.get("/v1/breakers", params={"service": "stock", "page_token": page["next_page_token"]})
    assert other.status_code == 400
