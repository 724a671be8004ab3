from __future__ import annotations

import json
import random
from typing import Any
from urllib.parse import quote

import httpx

from controlplane.errors import Code

NAMES = [
    "default",
    "orders",
    "a",
    "shop",
    "f.yaml",
    "",
    "..",
    "%",
    "-",
    "A",
    "ä",
    "\x00",
    "x" * 200,
    "a/b",
    "a:drain",
    "'",
    "a\nb",
    "0",
    "*",
]
SCALARS = [None, True, -1, 0, 1, 65536, 2**70, 0.5, "", "50", "\x00", "\ud800", "text", "json", [], {}, [1], "x" * 5000]
HEADERS = ["", "*", '"1"', '"0"', '"99999999999999999999"', 'W/"1"', '"', "1", '"a", "b"', ",", '""', "\x7f", "ÿ"]
QUERIES = [
    "",
    "page_size=2",
    "page_size=1e9",
    "page_token=AAAA",
    "page_token=%ff%00",
    "watch=no",
    "x=1",
    "namespace=ÿ",
    "&&=&",
    "%",
    "validate_only=true",
    "header=a%3D1&header=b",
    "from=ÿ&method=Charge&path=/v1",
]
POLICY = (
    "{apiVersion: trimtab/v1, kind: ServicePolicy, metadata: {namespace: default, name: orders}, "
    "spec: {default: {timeout: 3s}}}"
)
TEXTS = [
    POLICY.replace("3s", "soon"),
    POLICY.replace("{default", "[default"),
    "",
    "\x00",
    "a: &a [*a]",
    "off",
    "---\n---",
]
TYPES = ["application/json", "application/yaml", "text/yaml", "text/plain", "", "ÿ"]
CODES = {code.code: code.http_status for code in Code}


async def test_no_request_however_odd_fails_the_server_or_is_answered_off_the_record(orders) -> None:
    """Seeded, so that a failure can be repeated; every answer's status is one that the document names."""
    chance = random.Random(20_26)
    statuses: dict[int, int] = {}
    async with orders.http() as client:
        paths = (await client.get("/v1/openapi.json")).json()["paths"]
        for template, operations in paths.items():
            for method, operation in operations.items():
                for _ in range(25):
                    extras = _extras(method, template, chance)
                    answer = await client.request(method, _path(template, chance), **extras)
                    statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
                    _check(answer, operation, f"{method} {answer.request.url}")
    assert {200, 400, 404, 412, 428} <= statuses.keys(), statuses


def _path(template: str, chance: random.Random) -> str:
    for name in ("namespace", "service", "id", "app", "file"):
        likely = {"namespace": "default", "service": "orders", "id": "a"}.get(name, "shop")
        value = likely if chance.random() < 0.6 else chance.choice(NAMES)
        template = template.replace(f"{{{name}}}", quote(value, safe=""))
    query = chance.choice(QUERIES) if chance.random() < 0.3 else ""
    return f"{template}?{query}" if query else template


def _extras(method: str, template: str, chance: random.Random) -> dict[str, Any]:
    headers = {
        name: chance.choice(HEADERS) for name in ("If-Match", "If-None-Match", "Trimtab-Actor") if chance.random() < 0.3
    }
    encoded = {name.encode(): value.encode("utf-8") for name, value in headers.items()}
    if method != "put":
        return {"headers": encoded}
    if "policies" in template:
        media_type = "application/yaml" if chance.random() < 0.6 else chance.choice(TYPES)
        text = POLICY if chance.random() < 0.4 else chance.choice(TEXTS)
        return {"headers": encoded | {b"Content-Type": media_type.encode()}, "content": text}
    likely = {"weight": 5} if chance.random() < 0.5 else {"format": "text", "content": "hi"}
    body: Any = likely
    if chance.random() < 0.6:
        keys = ["weight", "format", "content", "encoding", "nonsense"]
        body = (
            {chance.choice(keys): chance.choice(SCALARS) for _ in range(3)}
            if chance.random() < 0.8
            else chance.choice(SCALARS)
        )
    return {"headers": encoded | {b"Content-Type": b"application/json"}, "content": json.dumps(body)}


def _check(answer: httpx.Response, operation: dict[str, Any], request: str) -> None:
    assert answer.status_code < 500, (request, answer.text)
    if answer.status_code < 400:
        assert str(answer.status_code) in operation["responses"], request
        return
    told = answer.json()
    assert answer.headers["content-type"] == "application/problem+json", request
    assert CODES[told["code"]] == answer.status_code == told["status"], request
    assert told["detail"], request
    routed = answer.status_code in {404, 405}  # an odd name may be another path altogether
    assert routed or str(answer.status_code) in operation["responses"], (request, answer.text)
