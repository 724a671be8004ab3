"""Traces of calls over gRPC, of all kinds, with the OpenTelemetry SDK and a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry import baggage, context
from opentelemetry.trace import StatusCode

from tests.unit.hooks.spans import Spans, is_below, said, traceparent
from tests.unit.sdk_grpc.shop import RETRIED, SERVICE, AwaitedCaller, BlockingCaller, Shop
from tests.unit.sdk_http.known_mesh import endpoint_at, refusing_endpoint

Caller = BlockingCaller | AwaitedCaller


@pytest.fixture
def spans() -> Spans:
    return Spans()


async def charge(caller: Caller, stub: Any) -> None:
    await caller.charge(stub, "x")


async def watch(caller: Caller, stub: Any) -> None:
    assert len([message async for message in caller.watch(stub, "x")]) == 3


async def upload(caller: Caller, stub: Any) -> None:
    await caller.upload(stub, ["a", "b"])


async def talk(caller: Caller, stub: Any) -> None:
    await caller.talk(stub, ["a", "b"])


@pytest.mark.parametrize(("method", "make"), [("Charge", charge), ("Watch", watch), ("Upload", upload), ("Talk", talk)])
async def test_calls_of_every_kind_send_the_context_of_their_attempt(
    caller: Caller, shop: Shop, spans: Spans, method: str, make: Callable[..., Any]
) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), hooks=[spans.tracing])
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        async with caller.stub(mesh) as stub:
            await make(caller, stub)
            spans.wait(2)
    finally:
        context.detach(token)
    (attempt,) = spans.attempts
    assert is_below(attempt, spans.call)
    assert shop.seen[0].metadata["traceparent"] == traceparent(attempt)
    assert shop.seen[0].metadata["baggage"] == "tenant=acme"
    assert attempt.name == f"{SERVICE}/{method}"
    assert said(attempt) == {
        "trimtab.service": "default/orders",
        "trimtab.policy.revision": 7,
        "trimtab.endpoint": "a",
        "server.address": "127.0.0.1",
        "server.port": shop.port,
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/{method}",
        "rpc.response.status_code": "OK",
    }
    assert attempt.status.status_code is StatusCode.UNSET


async def test_every_attempt_has_a_span(caller: Caller, shop: Shop, other: Shop, spans: Spans) -> None:
    shop.failing = 1
    endpoints = [refusing_endpoint("dead"), endpoint_at(shop.port, "a"), endpoint_at(other.port, "b")]
    mesh = caller.mesh(*endpoints, policy=RETRIED, hooks=[spans.tracing])
    async with caller.stub(mesh) as stub:
        await caller.charge(stub, "x")
        spans.wait(4)
    dead, busy, good = spans.attempts
    told = [said(span).get("error.type") for span in (dead, busy, good, spans.call)]
    assert told == ["UNAVAILABLE", "UNAVAILABLE", None, None]
    assert {span.context.trace_id for span in spans.ended if span.context} == {
        spans.call.context.trace_id if spans.call.context else 0
    }
    assert shop.seen[0].metadata["traceparent"] == traceparent(busy)
    assert other.seen[0].metadata["traceparent"] == traceparent(good)


async def test_a_stream_that_breaks_off_is_an_error_with_its_code(caller: Caller, shop: Shop, spans: Spans) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), hooks=[spans.tracing])
    async with caller.stub(mesh) as stub:
        with pytest.raises(caller.failed):
            assert [message async for message in caller.watch(stub, "break at 1")]
        spans.wait(2)
    (attempt,) = spans.attempts
    for span in (attempt, spans.call):
        assert (said(span)["error.type"], span.status.status_code) == ("UNAVAILABLE", StatusCode.ERROR)
    assert said(attempt)["rpc.response.status_code"] == "UNAVAILABLE"


async def test_a_stream_that_is_cancelled_says_so(caller: Caller, shop: Shop, spans: Spans) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), hooks=[spans.tracing])
    async with caller.stub(mesh) as stub:
        call = stub.Watch(StringValue(value="pause at 1"))
        if isinstance(caller, AwaitedCaller):
            await call.read()
        else:
            next(call)
        assert spans.ended == []
        call.cancel()
        spans.wait(2)
    (attempt,) = spans.attempts
    assert said(attempt)["rpc.response.status_code"] == "CANCELLED"
    assert said(attempt)["error.type"] == "CANCELLED"


async def test_metadata_of_the_caller_stays(caller: Caller, shop: Shop, spans: Spans) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), hooks=[spans.tracing])
    async with caller.stub(mesh) as stub:
        await caller.charge(stub, "x", metadata=(("tenant", "acme"), ("traceparent", "of the caller")))
        spans.wait(2)
    (attempt,) = spans.attempts
    assert shop.seen[0].metadata["tenant"] == "acme"
    assert shop.seen[0].metadata["traceparent"] == traceparent(attempt)
