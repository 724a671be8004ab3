"""Copies that race, as hooks see them: attempts of one call, each with a beginning, an end and a span of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from trimtab.core.calling.call import Call
from trimtab.core.retrying.conditions import OK
from trimtab.hooks import Dispatch, Hooks, Outcome
from trimtab.testing import FakeAsyncMesh

from tests.unit.hooks.spans import Spans, is_below, said
from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at
from tests.unit.sdk_http.neighbours import LIBRARIES, Http, Server, serving

HEDGED = "default: {hedge: 20ms}"


class Witness(Hooks):
    """Writes down which attempts are under way, and how they ended."""

    def __init__(self) -> None:
        self.under_way: set[str] = set()
        self.ended: list[tuple[str, str]] = []
        self.calls: list[Call] = []

    def attempt_started(self, call: Call, dispatch: Dispatch) -> None:
        assert call.endpoint is not None
        self.under_way.add(call.endpoint.id)

    def attempt_ended(self, call: Call, dispatch: Dispatch, outcome: Outcome) -> None:
        assert call.endpoint is not None
        self.under_way.remove(call.endpoint.id)
        self.ended.append((call.endpoint.id, outcome.condition))

    def call_ended(self, call: Call, error: Exception | None) -> None:
        self.calls.append(call)


@pytest.fixture(params=LIBRARIES)
def http(request: pytest.FixtureRequest) -> Http:
    return Http(request.param)


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    with serving("first") as first, serving("second") as second:
        yield first, second


async def test_every_copy_is_an_attempt_of_the_call(http: Http, servers: tuple[Server, Server]) -> None:
    first, second = servers
    first.hanging = True
    witness, spans = Witness(), Spans()
    orders = KnownMesh(
        endpoint_at(first.port, "a"), endpoint_at(second.port, "b"), policy=HEDGED, hooks=[witness, spans.tracing]
    )
    status, text, _ = await http.request(http.mesh(orders=orders), "GET", "mesh://orders/")
    assert (status, text) == (200, "second")
    first.going_on.set()
    async with asyncio.timeout(10):
        while witness.under_way:
            await asyncio.sleep(0.005)
    (call,) = witness.calls
    assert [attempt.endpoint.id for attempt in call.attempts if attempt.endpoint] == ["a", "b"]
    assert ("b", "OK") in witness.ended
    # A library that cannot end a request has it answered for nobody, or broken off when its client is closed.
    assert dict(witness.ended)["a"] in ({"cancelled"} if http.cancels else {"OK", "reset"})
    loser, winner = sorted(spans.attempts, key=lambda span: str(said(span)["trimtab.endpoint"]))
    assert is_below(loser, spans.call) and is_below(winner, spans.call)
    assert said(winner)["http.response.status_code"] == 200
    assert spans.call.status.status_code is not StatusCode.ERROR


async def test_what_a_guarded_copy_does_is_below_its_own_span() -> None:
    spans = Spans()
    inner = spans.provider.get_tracer("shop")

    def below(endpoint: Any) -> None:
        inner.start_span(f"work of {endpoint.id}").end()

    async with FakeAsyncMesh(hooks=[spans.tracing]) as mesh:
        mesh.add("orders", "10.0.0.1:8000", "10.0.0.2:8000")
        mesh.policy("orders", HEDGED)
        slow = asyncio.Event()

        @mesh.guard("orders", idempotent=True)
        async def charge(*, endpoint: Any) -> str:
            below(endpoint)
            if not slow.is_set():
                slow.set()
                await asyncio.Event().wait()
            return str(endpoint.id)

        charging = asyncio.create_task(charge())
        await slow.wait()
        while not charging.done():
            mesh.clock.advance(0.02)
            await asyncio.sleep(0)
        answered = await charging
        async with asyncio.timeout(10):
            while len(spans.attempts) < 2:
                await asyncio.sleep(0)
    attempts = {str(said(span)["trimtab.endpoint"]): span for span in spans.attempts}
    works = [span for span in spans.ended if span.name.startswith("work of")]
    assert len(attempts) == len(works) == 2
    for work in works:
        assert is_below(work, attempts[work.name.removeprefix("work of ")])
    lost = next(span for id_, span in attempts.items() if id_ != answered)
    assert said(lost)["error.type"] == "cancelled"
    assert said(attempts[answered]).get("error.type") is None
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_copy_that_fails_after_another_has_answered_makes_no_error_of_the_call() -> None:
    """On threads it may, before the call's own thread has looked."""
    spans = Spans()
    orders = KnownMesh(endpoint_at(1, "a"), endpoint_at(2, "b"), policy=HEDGED, hooks=[spans.tracing])
    pipeline = orders.service.pipeline("GET")
    assert pipeline.hedged is not None
    now = pipeline.now()
    call = pipeline.begin(now, method="GET")
    copies = pipeline.hedged.copies(call, now)
    slow, good = copies.first, copies.another(now + 0.02)
    assert good is not None
    broken = Outcome("exception", failed=True)
    for copy in (slow, good):
        pipeline.sending(copy, Dispatch(scoped=True))
    pipeline.attempt_over(good, OK)
    slow.error = "it broke"
    pipeline.attempt_over(slow, broken)
    copies.answered(good, OK, "", now + 0.03)
    copies.lost(slow, broken, now + 0.03)
    pipeline.over(call, now + 0.03)
    assert "error.type" not in said(spans.call)
    assert spans.call.status.status_code is not StatusCode.ERROR
