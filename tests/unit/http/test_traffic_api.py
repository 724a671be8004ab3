from __future__ import annotations

from collections.abc import Callable

import httpx

from controlplane.runtime.traffic import Traffic

CALLS = Traffic(
    node="n1",
    caller="checkout",
    caller_namespace="shop",
    replica="r1",
    namespace="shop",
    service="orders",
    endpoint="a",
    callers=1,
    calls=20.0,
    failures=5.0,
    seconds=0.4,
    in_flight=3,
    ejecting=1,
    ejected_by=("checkout",),
    age=2.0,
)


async def test_calls_to_an_endpoint_are_told_of_all_callers_together(
    api: httpx.AsyncClient, connected: Callable[..., None]
) -> None:
    connected("n1", calls=(CALLS,))
    connected("n2", calls=(CALLS._replace(node="n2", caller="billing", ejecting=0, ejected_by=(), age=4.0),))
    listing = (await api.get("/v1/traffic")).json()
    [told] = listing["items"]
    assert (told["name"], told["service"], told["endpoint"]) == ("traffic/shop/orders/a", "orders", "a")
    assert (told["callers"], told["calls_per_second"], told["failure_ratio"]) == (2, 40.0, 0.25)
    assert (told["latency_mean"], told["in_flight"], told["age"]) == (0.02, 6, 4.0)
    assert (told["ejecting"], told["ejected_by"]) == (1, ["checkout"])
    assert (told["caller"], told["node"], told["replica"]) == ("", "", "")
    assert (listing["omitted"], listing["unreachable"]) == (0, [])


async def test_calls_may_be_told_for_each_caller(api: httpx.AsyncClient, connected: Callable[..., None]) -> None:
    idle = CALLS._replace(node="n2", caller="billing", calls=0.0, failures=0.0, seconds=0.0)
    connected("n1", calls=(CALLS,))
    connected("n2", calls=(idle,))
    items = (await api.get("/v1/traffic", params={"by": "caller"})).json()["items"]
    assert [(item["caller"], item["node"], item["latency_mean"]) for item in items] == [
        ("billing", "n2", None),
        ("checkout", "n1", 0.02),
    ]
    assert items[0]["name"] == "replicas/r1/clients/n2/traffic/shop/orders/a"
    assert (await api.get("/v1/traffic", params={"by": "weather"})).json()["errors"][0]["path"] == "query.by"


async def test_calls_are_filtered_and_paged(api: httpx.AsyncClient, connected: Callable[..., None]) -> None:
    connected("n1", calls=tuple(CALLS._replace(endpoint=f"e{number}") for number in range(3)))
    connected("n2", calls=(CALLS._replace(node="n2", service="stock"),))
    query = {"namespace": "shop", "service": "orders", "page_size": 2}
    page = (await api.get("/v1/traffic", params=query)).json()
    assert [item["endpoint"] for item in page["items"]] == ["e0", "e1"]
    rest = (await api.get("/v1/traffic", params=query | {"page_token": page["next_page_token"]})).json()
    assert [item["endpoint"] for item in rest["items"]] == ["e2"]
    other = await api.get("/v1/traffic", params={"service": "stock", "page_token": page["next_page_token"]})
    assert other.status_code == 400
