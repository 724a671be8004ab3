"""Traces of calls, with the OpenTelemetry SDK and real servers that echo what they were sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import aiohttp
import httpx
import pytest
import requests
from opentelemetry import baggage, context, trace
from opentelemetry.trace import SpanKind, StatusCode
from trimtab.errors import RateLimited
from trimtab.http import aiohttp as mesh_aiohttp
from trimtab.http import requests as mesh_requests
from trimtab.http.httpx import async_client, client
from trimtab.testing import FakeAsyncMesh, FakeMesh

from tests.unit.hooks.spans import Spans, is_below, said, traceparent
from tests.unit.sdk_http.known_mesh import AsyncKnownMesh, KnownMesh, endpoint_at, origin, refusing_endpoint

Ask = Callable[[Spans, str, list[Any]], Awaitable[Any]]
RETRIED = "default: {balance: round_robin, retry: {attempts: 2, on: ['503', exception], backoff: 1ms..1ms}}"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with origin() as port:
        yield port


@pytest.fixture
def spans() -> Spans:
    return Spans()


async def with_httpx(spans: Spans, url: str, endpoints: list[Any]) -> Any:
    mesh = KnownMesh(*endpoints, policy=RETRIED, hooks=[spans.tracing])

    def ask() -> Any:
        with client(mesh) as http:
            answer = http.get(url)
            return answer.json() if answer.status_code == 200 else answer.status_code

    return await asyncio.to_thread(ask)


async def with_async_httpx(spans: Spans, url: str, endpoints: list[Any]) -> Any:
    async with async_client(AsyncKnownMesh(*endpoints, policy=RETRIED, hooks=[spans.tracing])) as http:
        answer = await http.get(url)
        return answer.json() if answer.status_code == 200 else answer.status_code


async def with_requests(spans: Spans, url: str, endpoints: list[Any]) -> Any:
    mesh = KnownMesh(*endpoints, policy=RETRIED, hooks=[spans.tracing])

    def ask() -> Any:
        with requests.Session() as session:
            session.mount("mesh://", mesh_requests.adapter(mesh))
            answer = session.get(url)
            return answer.json() if answer.status_code == 200 else answer.status_code

    return await asyncio.to_thread(ask)


async def with_aiohttp(spans: Spans, url: str, endpoints: list[Any]) -> Any:
    mesh = AsyncKnownMesh(*endpoints, policy=RETRIED, hooks=[spans.tracing])
    async with mesh_aiohttp.session(mesh) as session, session.get(url) as answer:
        body = await answer.read()
        return await answer.json(content_type=None) if answer.status == 200 else len(body) and answer.status


every_client = pytest.mark.parametrize(
    "ask",
    [with_httpx, with_async_httpx, with_requests, with_aiohttp],
    ids=["httpx", "async httpx", "requests", "aiohttp"],
)


@every_client
async def test_an_attempt_hangs_below_its_call_and_what_the_callee_does_below_the_attempt(
    ask: Ask, spans: Spans, port: int
) -> None:
    seen = await ask(spans, "mesh://orders/v1/42?secret=1", [endpoint_at(port)])
    (attempt,) = spans.attempts
    assert is_below(attempt, spans.call)
    assert seen["headers"]["traceparent"] == traceparent(attempt)
    assert (spans.call.name, attempt.name) == ("GET default/orders", "GET")
    assert said(attempt) == {
        "trimtab.service": "default/orders",
        "trimtab.policy.revision": 7,
        "trimtab.endpoint": "a",
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.full": f"http://127.0.0.1:{port}/v1/42",
    }
    assert said(spans.call) == {
        "trimtab.service": "default/orders",
        "trimtab.policy.revision": 7,
        "trimtab.attempts": 1,
    }
    assert attempt.status.status_code is StatusCode.UNSET


@every_client
async def test_every_attempt_has_a_span_and_its_number(ask: Ask, spans: Spans, port: int) -> None:
    await ask(spans, "mesh://orders/", [refusing_endpoint("dead"), endpoint_at(port, "alive")])
    dead, alive = spans.attempts
    assert (said(dead)["error.type"], dead.status.status_code) == ("connect-failure", StatusCode.ERROR)
    assert "http.response.status_code" not in said(dead)
    assert (said(alive)["http.request.resend_count"], said(alive)["trimtab.endpoint"]) == (1, "alive")
    assert spans.call.status.status_code is StatusCode.UNSET
    assert said(spans.call)["trimtab.attempts"] == 2


@every_client
async def test_a_bad_answer_is_an_error_of_the_attempt_and_of_the_call(ask: Ask, spans: Spans, port: int) -> None:
    assert await ask(spans, "mesh://orders/fail", [endpoint_at(port)]) == 503
    first, second = spans.attempts
    for span in (first, second, spans.call):
        assert (said(span)["error.type"], span.status.status_code) == ("503", StatusCode.ERROR)
    assert said(second)["http.response.status_code"] == 503


@every_client
async def test_an_answer_that_breaks_off_is_an_error_although_its_status_was_good(
    ask: Ask, spans: Spans, port: int
) -> None:
    with suppress(httpx.HTTPError, requests.RequestException, aiohttp.ClientError):
        await ask(spans, "mesh://orders/broken", [endpoint_at(port)])
    (attempt,) = spans.attempts
    assert (said(attempt)["http.response.status_code"], said(attempt)["error.type"]) == (200, "reset")
    assert said(spans.call)["error.type"] == "reset"


@every_client
async def test_what_is_current_is_the_parent_and_its_baggage_travels(ask: Ask, spans: Spans, port: int) -> None:
    tracer = trace.get_tracer("tests", tracer_provider=spans.provider)
    with tracer.start_as_current_span("checkout") as checkout:
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        try:
            seen = await ask(spans, "mesh://orders/", [endpoint_at(port)])
        finally:
            context.detach(token)
    (call,) = [span for span in spans.ended if span.name == "GET default/orders"]
    assert is_below(call, checkout)  # type: ignore[arg-type]
    assert seen["headers"]["baggage"] == "tenant=acme"


async def test_a_call_that_is_given_up_between_two_attempts_did_not_fail_with_the_last(spans: Spans, port: int) -> None:
    mesh = AsyncKnownMesh(endpoint_at(port), policy=RETRIED.replace("1ms..1ms", "10s..10s"), hooks=[spans.tracing])
    async with async_client(mesh) as http:
        asking = asyncio.create_task(http.get("mesh://orders/fail"))
        async with asyncio.timeout(10):
            while not spans.attempts:
                await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert said(spans.attempts[0])["error.type"] == "503"
    assert said(spans.call)["error.type"] == "cancelled"
    assert mesh.service.statistics.read().cancelled == 1


def test_the_span_of_a_stream_ends_when_it_was_read(spans: Spans, port: int) -> None:
    mesh = KnownMesh(endpoint_at(port), hooks=[spans.tracing])
    with client(mesh) as http, http.stream("GET", "mesh://orders/") as answer:
        assert spans.ended == []
        answer.read()
        assert [span.kind for span in spans.ended] == [SpanKind.CLIENT, SpanKind.INTERNAL]


def test_a_refused_call_has_a_span_that_says_by_what() -> None:
    spans = Spans()
    with FakeMesh(hooks=[spans.tracing]) as mesh:
        mesh.add("orders", "10.0.0.1:80")
        mesh.policy("orders", "default: {limit: {rate: 1/h}}")
        mesh.pick("orders").done()
        spans.clear()
        with pytest.raises(RateLimited):
            mesh.pick("orders")
        with pytest.raises(Exception, match="never heard of it"):
            mesh.pick("nobody")
    limited, nobody = spans.ended
    assert (said(limited)["trimtab.refused"], said(limited)["error.type"]) == ("limit", "call.rate_limited")
    assert (said(nobody)["trimtab.refused"], said(nobody)["error.type"]) == ("endpoints", "service.no_endpoints")
    assert said(nobody)["trimtab.attempts"] == 0


def test_a_fallback_is_told_below_the_call_that_failed() -> None:
    spans = Spans()
    with FakeMesh(hooks=[spans.tracing]) as mesh:
        mesh.add("orders", "10.0.0.1:80")
        mesh.policy("orders", "default: {fallback: {cache: 60s}, retry: off}")
        mesh.respond("orders", [200, 503])
        with mesh.http_client() as http:
            http.get("mesh://orders/")
            spans.clear()
            mesh.clock.advance(20)
            http.get("mesh://orders/")
    fallback = spans.ended[-1]
    assert is_below(fallback, spans.call)
    assert (said(fallback)["trimtab.fallback"], said(fallback)["trimtab.fallback.age"]) == ("cache", 20.0)
    assert spans.call.status.status_code is StatusCode.ERROR


def test_what_a_guarded_function_does_hangs_below_its_attempt() -> None:
    spans = Spans()
    tracer = trace.get_tracer("tests", tracer_provider=spans.provider)
    with FakeMesh(hooks=[spans.tracing]) as mesh:
        mesh.add("orders", "10.0.0.1:80")
        mesh.policy("orders", RETRIED)
        failing = [True, False]

        @mesh.guard("orders", method="Charge", idempotent=True)
        def charge() -> None:
            with tracer.start_as_current_span("inside"):
                if failing.pop(0):
                    raise RuntimeError("not now")

        charge()
        for attempt in mesh.attempts("orders"):
            with attempt, tracer.start_as_current_span("in the block"):
                pass
    first, second, third = spans.attempts
    inside = [span for span in spans.ended if span.name == "inside"]
    assert is_below(inside[0], first)
    assert is_below(inside[1], second)
    assert first.name == "Charge"
    assert said(first)["error.type"] == "exception"
    assert is_below(next(span for span in spans.ended if span.name == "in the block"), third)
    assert not trace.get_current_span().get_span_context().is_valid


async def test_awaited_functions_side_by_side_keep_their_own_spans() -> None:
    spans = Spans()
    tracer = trace.get_tracer("tests", tracer_provider=spans.provider)
    async with FakeAsyncMesh(hooks=[spans.tracing]) as mesh:
        mesh.add("orders", "10.0.0.1:80")

        @mesh.guard("orders")
        async def charge(order: int) -> None:
            await asyncio.sleep(0)
            with tracer.start_as_current_span(f"inside {order}"):
                await asyncio.sleep(0)

        await asyncio.gather(*(charge(order) for order in range(5)))
        async for attempt in mesh.attempts("orders"):
            with attempt:
                assert trace.get_current_span().get_span_context().is_valid
    parents = {span.parent.span_id for span in spans.ended if span.name.startswith("inside") and span.parent}
    assert parents <= {span.context.span_id for span in spans.attempts if span.context}
    assert len(parents) == 5
    assert not trace.get_current_span().get_span_context().is_valid
