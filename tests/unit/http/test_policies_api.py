from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from trimtab.policy import canonical, reading
from trimtab.policy.model import MAX_BYTES

from controlplane.core.change import Write
from controlplane.core.model import Kind, PolicyDocument, Ref
from controlplane.core.resource import ResourceKind, ResourceName
from tests.unit.http.house import House

PATH = "/v1/namespaces/shop/policies/orders"
ALL = "/v1/namespaces/shop/policies/*"
NEW = {"If-None-Match": "*"}
YAML = {"Content-Type": "application/yaml"}
ORDERS = """\
# Nobody waits longer than this.
apiVersion: trimtab/v1
kind: ServicePolicy
metadata: {name: orders, namespace: shop}
spec:
  default:
    timeout: {total: 3s, attempt: 1s}
    retry: {attempts: 3, on: [connect-failure, 503, UNAVAILABLE], backoff: 50ms..1s, budget: 20%}
    breaker: {scope: endpoint, open_when: "failures >= 50% of 20 in 10s", open_for: 15s}
  routes:
    - match: {method: Charge}
      retry: off
    - match: {caller: batch, header: {x-tenant: acme}}
      priority: low
"""
NAMESPACE = """\
apiVersion: trimtab/v1
kind: ServicePolicy
metadata: {name: "*", namespace: shop}
spec:
  default:
    timeout: 9s
    concurrency: 200
"""


async def put(api: httpx.AsyncClient, text: str = ORDERS, path: str = PATH, **headers: str) -> httpx.Response:
    return await api.put(path, content=text, headers=YAML | (headers or NEW))


async def test_a_policy_is_created_read_replaced_and_withdrawn(api: httpx.AsyncClient) -> None:
    created = await put(api)
    assert created.status_code == 201
    shown = created.json()["policy"]
    assert (shown["sections"], shown["routes"], shown["author"]) == (["breaker", "retry", "timeout"], 2, "ana@desk")
    assert created.headers["etag"] == f'"{created.json()["revision"]}"'

    read = await api.get(PATH)
    assert read.headers["etag"] == created.headers["etag"]
    assert (await api.get(PATH, headers={"If-None-Match": read.headers["etag"]})).status_code == 304
    assert read.json()["document"] == json.loads(canonical.encode(reading.read(ORDERS)))

    replaced = await put(api, ORDERS.replace("3s", "4s"), **{"If-Match": read.headers["etag"]})
    assert (replaced.status_code, replaced.json()["revision"] > created.json()["revision"]) == (200, True)

    withdrawn = await api.delete(PATH, headers={"If-Match": replaced.headers["etag"]})
    assert withdrawn.json()["revision"] > replaced.json()["revision"]
    gone = await api.get(PATH)
    assert (gone.status_code, gone.json()["code"]) == (404, "resource.not_found")


async def test_people_get_back_what_they_wrote_and_what_it_comes_to(api: httpx.AsyncClient) -> None:
    await put(api)
    found = (await api.get(PATH)).json()
    assert found["source"] == ORDERS
    assert "Nobody waits" not in found["text"]
    assert reading.read(found["text"]) == reading.read(ORDERS)


async def test_json_is_a_policy_too_and_has_no_source(api: httpx.AsyncClient) -> None:
    document = json.loads(canonical.encode(reading.read(ORDERS)))
    assert (await api.put(PATH, json=document, headers=NEW)).status_code == 201
    found = (await api.get(PATH)).json()
    assert (found["source"], found["document"]) == ("", document)


async def test_the_same_again_keeps_its_revision_and_its_source(api: httpx.AsyncClient) -> None:
    first = (await put(api)).headers["etag"]
    again = await put(api, **{"If-Match": first})
    assert again.headers["etag"] == first
    as_json = await api.put(PATH, json=(await api.get(PATH)).json()["document"], headers={"If-Match": first})
    assert as_json.headers["etag"] == first
    assert (await api.get(PATH)).json()["source"] == ORDERS


async def test_a_new_comment_is_kept_but_is_no_news_to_clients(api: httpx.AsyncClient, house: House) -> None:
    first = (await put(api)).headers["etag"]
    name = ResourceName(ResourceKind.POLICY, "shop/orders")
    told = house.view.resource(name)
    rewritten = ORDERS.replace("Nobody waits longer", "Agreed with billing: nobody waits longer")
    assert (await put(api, rewritten, **{"If-Match": first})).headers["etag"] != first
    assert (await api.get(PATH)).json()["source"] == rewritten
    assert house.view.resource(name) is told


async def test_the_policy_of_a_whole_namespace_lives_at_an_asterisk(api: httpx.AsyncClient) -> None:
    assert (await put(api, NAMESPACE, ALL)).status_code == 201
    assert (await api.get(ALL.replace("*", "%2A"))).json()["service"] == "*"
    await put(api)
    items = (await api.get("/v1/namespaces/shop/policies")).json()["items"]
    assert [item["service"] for item in items] == ["*", "orders"]
    assert (await api.get("/v1/namespaces")).json()["items"][0]["policies"] == 2


async def test_a_write_that_says_nothing_of_what_it_replaces_is_refused(api: httpx.AsyncClient) -> None:
    for answer in (await api.put(PATH, content=ORDERS, headers=YAML), await api.delete(PATH)):
        assert (answer.status_code, answer.json()["code"]) == (428, "resource.precondition_required")


async def test_of_many_writers_with_one_tag_exactly_one_wins(api: httpx.AsyncClient) -> None:
    tag = (await put(api)).headers["etag"]
    texts = (ORDERS.replace("total: 3s", f"total: {n}s") for n in range(10, 20))
    answers = await asyncio.gather(*(put(api, text, **{"If-Match": tag}) for text in texts))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9


async def test_every_wrong_place_is_told_with_its_line_column_and_the_way_out(
    api: httpx.AsyncClient, house: House
) -> None:
    wrong = ORDERS.replace("attempts: 3", "attemps: 3").replace("open_for: 15s", "open_for: soon")
    answer = await put(api, wrong)
    assert (answer.status_code, answer.json()["code"]) == (400, "policy.invalid")
    retry, breaker = answer.json()["errors"]
    assert (retry["path"], retry["line"], retry["column"]) == ("spec.default.retry.attemps", 8, 13)
    assert "attempts" in retry["hint"]
    assert (breaker["path"], breaker["line"]) == ("spec.default.breaker.open_for", 9)
    assert house.view.policies("shop") == []


@pytest.mark.parametrize("text", ["", "a: [", "{}", "\x00", "- 1", "a: &a [*a]"])
async def test_what_is_no_policy_is_refused(api: httpx.AsyncClient, text: str) -> None:
    answer = await put(api, text)
    assert (answer.status_code, answer.json()["code"]) == (400, "policy.invalid")
    assert answer.json()["errors"]


async def test_bytes_that_are_no_text_are_refused(api: httpx.AsyncClient) -> None:
    answer = await api.put(PATH, content=b"\xff\xfe", headers=YAML | NEW)
    assert (answer.status_code, answer.json()["code"]) == (400, "policy.invalid")


@pytest.mark.parametrize("path", [PATH.replace("orders", "stock"), PATH.replace("shop", "toys"), ALL])
async def test_a_document_can_be_written_to_its_own_place_only(api: httpx.AsyncClient, path: str) -> None:
    answer = await put(api, ORDERS, path)
    assert (answer.status_code, answer.json()["code"]) == (400, "policy.invalid")
    [place] = answer.json()["errors"]
    assert place["path"] in ("metadata.name", "metadata.namespace")
    assert "shop/orders" in place["message"]
    line = ORDERS.splitlines()[place["line"] - 1]
    assert line[place["column"] - 1 :].startswith(("orders", "shop"))


async def test_a_document_beyond_the_bound_is_too_large(api: httpx.AsyncClient) -> None:
    answer = await put(api, ORDERS + "#" * MAX_BYTES)
    assert (answer.status_code, answer.json()["code"]) == (413, "request.too_large")
    [place] = answer.json()["errors"]
    kept = (ORDERS + "#" * MAX_BYTES)[:MAX_BYTES]
    assert (place["line"], place["column"]) == (kept.count("\n") + 1, len(kept) - kept.rfind("\n"))


async def test_a_body_of_another_type_is_refused_by_name(api: httpx.AsyncClient) -> None:
    answer = await api.put(PATH, content=ORDERS, headers={"Content-Type": "text/html"} | NEW)
    [place] = answer.json()["errors"]
    assert (answer.status_code, place["path"]) == (400, "header.Content-Type")


async def test_what_is_only_validated_is_not_written(api: httpx.AsyncClient, house: House) -> None:
    checked = await api.put(PATH, params={"validate_only": True}, content=ORDERS, headers=YAML | NEW)
    assert (checked.status_code, checked.json()) == (200, {"revision": 0, "policy": None})
    assert house.view.policies("shop") == []
    refused = await api.put(PATH, params={"validate_only": True}, content="kind: Pod", headers=YAML | NEW)
    assert refused.json()["code"] == "policy.invalid"

    tag = (await put(api)).headers["etag"]
    stale = await api.put(PATH, params={"validate_only": True}, content=ORDERS, headers=YAML | NEW)
    assert stale.status_code == 412
    changed = ORDERS.replace("3s", "4s")
    checked = await api.put(PATH, params={"validate_only": True}, content=changed, headers=YAML | {"If-Match": tag})
    assert f'"{checked.json()["revision"]}"' == tag
    assert (await api.get(PATH)).json()["source"] == ORDERS


async def test_withdrawing_what_is_not_there_is_refused(api: httpx.AsyncClient) -> None:
    for headers in ({"If-Match": '"7"'}, {"If-Match": "*"}):
        answer = await api.delete(PATH, headers=headers)
        assert answer.status_code in {404, 412}


async def test_the_schema_is_published(api: httpx.AsyncClient) -> None:
    schema = (await api.get("/v1/policies:schema")).json()
    assert schema["$schema"].startswith("https://json-schema.org/draft/2020-12")
    assert "timeout" in schema["properties"]["spec"]["properties"]["default"]["properties"]


async def effective(api: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    answer = await api.get("/v1/namespaces/shop/services/orders/effective-policy", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def origins(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {section["section"]: (section["document"], section["place"]) for section in found["sections"]}


async def test_each_section_says_where_it_comes_from(api: httpx.AsyncClient) -> None:
    own, wide = (await put(api)).json()["revision"], (await put(api, NAMESPACE, ALL)).json()["revision"]
    found = await effective(api, **{"from": "checkout", "method": "GET"})
    told = origins(found)
    assert told["timeout"] == ("shop/orders", "default")
    assert told["concurrency"] == ("shop/*", "default")
    assert told["balance"] == ("built-in", "")
    assert "fault" not in told, "nobody says it"
    revisions = {section["section"]: section["revision"] for section in found["sections"]}
    assert (revisions["timeout"], revisions["concurrency"], revisions["balance"]) == (own, wide, 0)
    [timeout] = [section for section in found["sections"] if section["section"] == "timeout"]
    assert timeout["value"] == {"total": "3s", "attempt": "1s"}
    assert timeout["brief"] == "{total: 3s, attempt: 1s}"


async def test_a_route_that_fits_decides_and_off_is_told_with_its_place(api: httpx.AsyncClient) -> None:
    await put(api)
    charge = await effective(api, method="/shop.Orders/Charge")
    [retry] = [section for section in charge["sections"] if section["section"] == "retry"]
    assert (retry["off"], retry["value"], retry["brief"], retry["place"]) == (True, None, "off", "routes[0]")
    batch = await effective(api, **{"from": "batch", "header": ["X-Tenant=acme"]})
    assert origins(batch)["priority"] == ("shop/orders", "routes[1]")
    stranger = await effective(api, **{"from": "batch", "header": "x-tenant=other"})
    assert origins(stranger)["priority"] == ("built-in", "")


async def test_a_header_without_a_value_is_refused(api: httpx.AsyncClient) -> None:
    answer = await api.get(
        "/v1/namespaces/shop/services/orders/effective-policy", params={"header": ["a=b", "nonsense"]}
    )
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "query.header[1]")


async def test_who_follows_a_policy_is_told_and_how_far_each_has_got(
    api: httpx.AsyncClient, connected: Callable[..., None]
) -> None:
    revision = (await put(api)).json()["revision"]
    name, everywhere = (ResourceName(ResourceKind.POLICY, f"shop/{service}") for service in ("orders", "*"))
    both = ((name, False), (everywhere, False))
    connected("n1", acked=revision, followed=both)
    connected("n2", acked=revision, followed=((name, True), (everywhere, False)))
    connected("n3", acked=revision - 1, followed=((name, False),))  # its replica does not know the policy yet
    connected("n4", acked=revision, followed=((name, False),), nacks=(("policy/shop/orders", "no such field"),))
    connected("n5", acked=revision, followed=((ResourceName(ResourceKind.POLICY, "shop/stock"), False),))
    rollout = (await api.get(PATH + "/rollout")).json()
    assert (rollout["document"], rollout["revision"]) == ("shop/orders", revision)
    assert (rollout["acknowledged"], rollout["behind"], rollout["refused"]) == (1, 2, 1)
    states = [(client["node"], client["state"], client["reason"]) for client in rollout["clients"]]
    assert states == [
        ("n4", "REFUSED", "no such field"),
        ("n2", "BEHIND", ""),
        ("n3", "BEHIND", ""),
        ("n1", "ACKNOWLEDGED", ""),
    ]
    own, wide = (await effective(api))["rollouts"]
    assert own == rollout
    assert (wide["document"], wide["revision"], wide["acknowledged"]) == ("shop/*", 0, 2)


@pytest.mark.parametrize("garbage", [b"\xff\x00", b"[]", b"7", b'{"spec":7}', b'{"spec":{"default":[],"routes":3}}'])
async def test_a_record_that_is_no_policy_spoils_no_listing_and_can_be_replaced(
    api: httpx.AsyncClient, house: House, garbage: bytes
) -> None:
    await put(api, NAMESPACE, ALL)
    await house.write(Write(Ref(Kind.POLICY, ("shop", "orders")), PolicyDocument(garbage)))
    items = (await api.get("/v1/namespaces/shop/policies")).json()["items"]
    assert [(item["service"], item["routes"]) for item in items] == [("*", 0), ("orders", 0)]
    assert (await api.get(PATH)).status_code in {200, 400}
    assert (await api.get("/v1/namespaces/shop/services/orders/effective-policy")).status_code == 400
    assert (await put(api, **{"If-Match": "*"})).status_code == 200


async def test_a_policy_that_a_newer_replica_stored_is_shown_but_not_explained_and_can_be_replaced(
    api: httpx.AsyncClient, house: House
) -> None:
    newer = b'{"apiVersion":"trimtab/v2","kind":"ServicePolicy","metadata":{},"spec":{"default":{"teleport":{}}}}'
    await house.write(Write(Ref(Kind.POLICY, ("shop", "orders")), PolicyDocument(newer)))
    [item] = (await api.get("/v1/namespaces/shop/policies")).json()["items"]
    assert item["sections"] == ["teleport"]
    assert json.loads((await api.get(PATH)).json()["text"]) == json.loads(newer)
    answer = await api.get("/v1/namespaces/shop/services/orders/effective-policy")
    assert answer.json()["hint"] == "upgrade this replica"
    assert (await put(api, **{"If-Match": "*"})).status_code == 200
