from __future__ import annotations

import asyncio
import base64
import json

import httpx
import pytest

PATH = "/v1/namespaces/default/configs/shop/app.yaml"
BODY = {"format": "yaml", "content": "greeting: good day\n"}
NEW = {"If-None-Match": "*"}


async def test_a_file_is_created_read_replaced_and_withdrawn(api: httpx.AsyncClient) -> None:
    created = await api.put(PATH, json=BODY, headers=NEW)
    assert created.status_code == 201
    assert created.json()["author"] == "ana@desk"
    assert created.headers["etag"] == f'"{created.json()["revision"]}"'

    read = await api.get(PATH)
    assert (read.json()["content"], read.json()["encoding"], read.json()["size"]) == (BODY["content"], "utf-8", 19)
    assert read.headers["etag"] == created.headers["etag"]

    replaced = await api.put(
        PATH, json=BODY | {"content": "greeting: hi\n"}, headers={"If-Match": read.headers["etag"]}
    )
    assert replaced.status_code == 200
    assert replaced.json()["revision"] > created.json()["revision"]

    withdrawn = await api.delete(PATH, headers={"If-Match": replaced.headers["etag"]})
    assert withdrawn.json()["revision"] > replaced.json()["revision"]
    assert (await api.get(PATH)).status_code == 404


async def test_a_write_that_says_nothing_of_what_it_replaces_is_refused(api: httpx.AsyncClient) -> None:
    for answer in (await api.put(PATH, json=BODY), await api.delete(PATH)):
        assert (answer.status_code, answer.json()["code"]) == (428, "resource.precondition_required")
        assert "If-Match" in answer.json()["hint"]


async def test_a_stale_writer_overwrites_nothing(api: httpx.AsyncClient) -> None:
    first = (await api.put(PATH, json=BODY, headers=NEW)).headers["etag"]
    await api.put(PATH, json=BODY | {"content": "theirs"}, headers={"If-Match": first})
    stale = await api.put(PATH, json=BODY | {"content": "mine"}, headers={"If-Match": first})
    assert (stale.status_code, stale.json()["code"]) == (412, "resource.precondition_failed")
    assert (await api.put(PATH, json=BODY, headers=NEW)).status_code == 412
    assert (await api.get(PATH)).json()["content"] == "theirs"


async def test_of_many_writers_with_one_tag_exactly_one_wins(api: httpx.AsyncClient) -> None:
    tag = (await api.put(PATH, json=BODY, headers=NEW)).headers["etag"]
    writes = (api.put(PATH, json=BODY | {"content": f"writer {n}"}, headers={"If-Match": tag}) for n in range(10))
    statuses = [answer.status_code for answer in await asyncio.gather(*writes)]
    assert sorted(statuses) == [200] + [412] * 9


async def test_any_state_may_be_named_but_not_none(api: httpx.AsyncClient) -> None:
    assert (await api.put(PATH, json=BODY, headers={"If-Match": "*"})).status_code == 412
    tag = (await api.put(PATH, json=BODY, headers=NEW)).headers["etag"]
    assert (await api.put(PATH, json=BODY | {"content": "x"}, headers={"If-Match": "*"})).status_code == 200
    several = {"If-Match": f'"1", {(await api.get(PATH)).headers["etag"]}'}
    assert (await api.put(PATH, json=BODY | {"content": "y"}, headers=several)).status_code == 200
    assert (await api.put(PATH, json=BODY, headers={"If-Match": f'"1", {tag}'})).status_code == 412
    assert (await api.put(PATH, json=BODY, headers={"If-Match": f"W/{tag}"})).status_code == 412


@pytest.mark.parametrize(
    "headers",
    [{"If-Match": "12"}, {"If-Match": '"1" "2"'}, {"If-None-Match": '"3"'}, {"If-Match": '"1'}],
)
async def test_a_malformed_precondition_is_refused_with_its_place(
    api: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await api.put(PATH, json=BODY, headers=headers)
    assert answer.status_code == 400
    [error] = answer.json()["errors"]
    assert error["path"] == f"header.{next(iter(headers))}"


async def test_bytes_that_are_no_text_come_back_as_they_went(api: httpx.AsyncClient) -> None:
    raw = bytes(range(256))
    encoded = base64.b64encode(raw).decode()
    await api.put(PATH, json={"format": "text", "content": encoded, "encoding": "base64"}, headers=NEW)
    read = (await api.get(PATH)).json()
    assert read["encoding"] == "base64"
    assert base64.b64decode(read["content"]) == raw
    assert read["size"] == 256


async def test_content_that_cannot_be_bytes_is_refused(api: httpx.AsyncClient) -> None:
    half = json.dumps(BODY).replace("good day", "\\ud800")
    for content, headers in (
        (half, {"Content-Type": "application/json"}),
        (json.dumps({"format": "text", "content": "%%%", "encoding": "base64"}), {"Content-Type": "application/json"}),
    ):
        answer = await api.put(PATH, content=content, headers=headers | NEW)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["path"] == "content"


async def test_a_file_beyond_the_bound_is_refused_by_the_cores_rule(api: httpx.AsyncClient) -> None:
    answer = await api.put(PATH, json=BODY | {"content": "x" * (512 * 1024 + 1)}, headers=NEW)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == "content"


async def test_a_listing_tells_all_but_the_content(api: httpx.AsyncClient) -> None:
    for file in ("b.toml", "a.json"):
        await api.put(
            f"/v1/namespaces/default/configs/shop/{file}", json={"format": "text", "content": "1"}, headers=NEW
        )
    items = (await api.get("/v1/namespaces/default/configs")).json()["items"]
    assert [item["file"] for item in items] == ["a.json", "b.toml"]
    assert all("content" not in item for item in items)
