from __future__ import annotations

import httpx

A = "/v1/namespaces/default/services/orders/instances/a"


async def test_an_empty_mesh_lists_nothing_rather_than_failing(api: httpx.AsyncClient) -> None:
    for path in (
        "/v1/namespaces",
        "/v1/namespaces/default/services",
        "/v1/namespaces/default/services/orders/instances",
    ):
        answer = await api.get(path)
        assert answer.status_code == 200, path
        assert answer.json()["items"] == []
        assert answer.json()["next_page_token"] == ""


async def test_a_service_is_listed_with_how_its_instances_fare(api: httpx.AsyncClient, orders: object) -> None:
    listing = (await api.get("/v1/namespaces/default/services")).json()
    [service] = listing["items"]
    assert service["name"] == "namespaces/default/services/orders"
    assert (service["instances"], service["healthy"], service["unhealthy"], service["protected"]) == (3, 2, 1, False)
    assert listing["revision"] >= service["revision"] > 0


async def test_namespaces_are_those_with_something_in_them(api: httpx.AsyncClient, house) -> None:
    await house.register(namespace="shop")
    [namespace] = (await api.get("/v1/namespaces")).json()["items"]
    assert (namespace["namespace"], namespace["services"], namespace["configs"]) == ("shop", 1, 0)


async def test_an_instance_shows_report_intent_and_effect_apart(api: httpx.AsyncClient, orders: object) -> None:
    await api.post(f"{A}:drain")
    await api.put(f"{A}/weight", json={"weight": 7})
    found = (await api.get(A)).json()
    assert found["reported"]["state"] == "SERVING"
    assert found["reported"]["weight"] == 100
    assert found["desired"]["drain"] is True
    assert found["desired"]["by"] == "ana@desk"
    assert found["health"] == {
        "value": "DRAINING",
        "origin": "operator",
        "why": "drained by ana@desk; the instance reports SERVING",
    }
    assert found["weight"] == {"value": 7, "origin": "operator", "why": "set by ana@desk; the instance reports 100"}


async def test_an_instance_that_reports_trouble_is_unhealthy_by_its_own_word(
    api: httpx.AsyncClient, orders: object
) -> None:
    found = (await api.get("/v1/namespaces/default/services/orders/instances/c")).json()
    assert (found["health"]["value"], found["health"]["origin"]) == ("UNHEALTHY", "instance")
    assert "still starting" in found["health"]["why"]


async def test_a_suspect_is_shown_as_the_guards_doubt(api: httpx.AsyncClient, orders) -> None:
    await orders.protect("orders", "a", "b")
    found = (await api.get(A)).json()
    assert (found["health"]["value"], found["health"]["origin"]) == ("SUSPECT", "guard")
    service = (await api.get("/v1/namespaces/default/services/orders")).json()
    assert (service["protected"], service["suspect"], service["healthy"]) == (True, 2, 0)


async def test_a_drain_is_answered_with_what_is_true_afterwards(api: httpx.AsyncClient, orders) -> None:
    drained = (await api.post(f"{A}:drain")).json()
    assert drained["instance"]["health"]["value"] == "DRAINING"
    assert drained["revision"] == drained["instance"]["revision"] == orders.view.revision
    lifted = (await api.post(f"{A}:undrain")).json()
    assert lifted["instance"]["health"]["value"] == "HEALTHY"
    assert lifted["instance"]["desired"] is None


async def test_a_weight_is_set_kept_beside_a_drain_and_given_back(api: httpx.AsyncClient, orders: object) -> None:
    await api.put(f"{A}/weight", json={"weight": 0})
    await api.post(f"{A}:drain")
    found = (await api.get(A)).json()
    assert (found["weight"]["value"], found["desired"]["drain"]) == (0, True)
    reset = (await api.delete(f"{A}/weight")).json()["instance"]
    assert (reset["weight"]["value"], reset["weight"]["origin"]) == (100, "instance")
    assert reset["desired"]["drain"] is True


async def test_intent_for_an_unknown_instance_is_refused_with_the_way_out(
    api: httpx.AsyncClient, orders: object
) -> None:
    answer = await api.post("/v1/namespaces/default/services/orders/instances/zzz:drain")
    assert answer.status_code == 404
    assert answer.json()["code"] == "instance.not_found"
    assert "trimtab get instances orders" in answer.json()["hint"]


async def test_an_id_may_hold_colons_and_dots(api: httpx.AsyncClient, house) -> None:
    await house.register(id="10.0.0.7:8000")
    path = "/v1/namespaces/default/services/orders/instances/10.0.0.7:8000"
    assert (await api.post(f"{path}:drain")).json()["instance"]["id"] == "10.0.0.7:8000"
    assert (await api.get(path)).json()["health"]["value"] == "DRAINING"


async def test_what_is_not_there_is_a_404_that_says_so(api: httpx.AsyncClient) -> None:
    for path, code in (
        ("/v1/namespaces/default/services/orders", "resource.not_found"),
        (A, "instance.not_found"),
    ):
        answer = await api.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, code)
        assert answer.json()["hint"]


async def test_pages_cover_a_listing_once_while_it_changes(api: httpx.AsyncClient, house) -> None:
    names = [f"s{number:02}" for number in range(10)]
    for name in names:
        await house.register(service=name)
    seen: list[str] = []
    token = ""
    while True:
        page = (await api.get("/v1/namespaces/default/services", params={"page_size": 3, "page_token": token})).json()
        seen += [item["service"] for item in page["items"]]
        token = page["next_page_token"]
        await house.register(service="s0" + "x" * len(seen))  # before and between what is still to come
        if not token:
            break
    assert [name for name in seen if "x" not in name] == names
    assert len(seen) == len(set(seen))


async def test_the_instances_of_a_namespace_page_in_order_over_services(api: httpx.AsyncClient, house) -> None:
    for service in ("a", "a-b", "b"):
        for id in ("1", "2"):
            await house.register(service=service, id=id)
    seen: list[tuple[str, str]] = []
    token = ""
    for _ in range(6):
        page = (await api.get("/v1/namespaces/default/instances", params={"page_size": 1, "page_token": token})).json()
        seen += [(item["service"], item["id"]) for item in page["items"]]
        token = page["next_page_token"]
    assert token == ""
    assert seen == [(service, id) for service in ("a", "a-b", "b") for id in ("1", "2")]


async def test_a_reader_that_holds_the_tag_is_told_that_nothing_changed(api: httpx.AsyncClient, orders) -> None:
    for path in (A, "/v1/namespaces/default/services/orders"):
        tag = (await api.get(path)).headers["etag"]
        assert (await api.get(path, headers={"If-None-Match": tag})).status_code == 304
        await api.post(f"{A}:drain")
        changed = await api.get(path, headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag
        await api.post(f"{A}:undrain")


async def test_the_guards_doubt_changes_an_instances_tag(api: httpx.AsyncClient, orders) -> None:
    tag = (await api.get(A)).headers["etag"]
    await orders.protect("orders", "a", "b")
    assert (await api.get(A)).headers["etag"] != tag
