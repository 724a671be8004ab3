from __future__ import annotations

import httpx
import pytest

TOKEN = "trimtab_s3cret"


async def test_the_probes_tell_life_start_and_readiness_apart(house) -> None:
    house.readiness.started = False
    async with house.http() as client:
        assert (await client.get("/livez")).status_code == 200
        for path in ("/startupz", "/readyz"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "server.not_ready")
            assert "view has not been loaded" in answer.json()["errors"][0]["message"]
            assert answer.headers["retry-after"] == "1"
        house.readiness.started = True
        assert (await client.get("/startupz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        house.readiness.stopping = True
        assert (await client.get("/startupz")).status_code == 200
        assert "shutting down" in (await client.get("/readyz")).text
        assert (await client.get("/livez")).status_code == 200


async def test_the_api_waits_for_the_first_view_and_says_so(house) -> None:
    house.readiness.started = False
    async with house.http() as client:
        answer = await client.get("/v1/namespaces")
    assert (answer.status_code, answer.json()["code"]) == (503, "server.not_ready")


async def test_metrics_are_prometheus_text(house) -> None:
    house.metrics.heartbeats.value += 3
    async with house.http() as client:
        plain = await client.get("/metrics")
        assert plain.headers["content-type"].startswith("text/plain")
        assert "trimtab_heartbeats_total 3.0" in plain.text
        modern = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert modern.headers["content-type"].startswith("application/openmetrics-text")
        assert modern.text.endswith("# EOF\n")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
)
async def test_without_the_token_nothing_under_v1_answers(house, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with house.http(token=TOKEN) as client:
        for path in ("/v1/namespaces", "/v1/openapi.json", "/v1/no-such-path", "/v1"):
            answer = await client.get(path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "access.unauthenticated")
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_with_the_token_the_api_answers_and_probes_never_ask_for_it(house) -> None:
    async with house.http(token=TOKEN) as client:
        for header in (f"Bearer {TOKEN}", f"bearer {TOKEN}"):
            assert (await client.get("/v1/namespaces", headers={"Authorization": header})).status_code == 200
        for path in ("/livez", "/readyz", "/startupz", "/metrics"):
            assert (await client.get(path)).status_code == 200


async def test_no_origin_is_allowed_across(api: httpx.AsyncClient) -> None:
    headers = {"Origin": "https://elsewhere.test", "Access-Control-Request-Method": "POST"}
    preflight = await api.options("/v1/namespaces", headers=headers)
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


async def test_the_document_names_every_operation_and_its_refusals(api: httpx.AsyncClient) -> None:
    document = (await api.get("/v1/openapi.json")).json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids)) >= 18
    assert {"listServices", "drainInstance", "putConfig", "listClients"} <= set(ids)
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert schemas["Problem"]["examples"]
    for operation in operations:
        assert operation.get("description"), operation["operationId"]
        assert "422" not in operation["responses"], operation["operationId"]
    references = {part.split('"')[0] for part in str(document).replace("'", '"').split("#/components/schemas/")[1:]}
    assert references <= set(schemas)
