"""The moments of calls that hooks are told of, in virtual time."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests
from trimtab import NoEndpoints
from trimtab.calling.guard import Guarded
from trimtab.core.calling.pipeline import Pipeline
from trimtab.errors import RateLimited
from trimtab.hooks import Call, Hooks
from trimtab.testing import FakeAsyncMesh, FakeMesh, Reply

from tests.unit.hooks.heard import Heard
from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at

ONE, TWO = "10.0.0.1-80", "10.0.0.2-80"
RETRIED = "default: {balance: round_robin, retry: {attempts: 3, on: ['503', exception], backoff: 1s..1s}}"


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def mesh(heard: Heard) -> Iterator[FakeMesh]:
    with FakeMesh(hooks=[heard]) as mesh:
        mesh.add("orders", "10.0.0.1:80")
        yield mesh


def test_without_hooks_calls_go_the_plain_way() -> None:
    plain = KnownMesh(endpoint_at(1)).service.pipeline("")
    observed = KnownMesh(endpoint_at(1), hooks=[Heard()]).service.pipeline("")
    assert type(plain) is Pipeline
    assert (plain.plain, plain.observed) == (True, False)
    assert (observed.plain, observed.observed) == (False, True)


def test_a_call_its_attempts_and_its_end_are_told_in_order(mesh: FakeMesh, heard: Heard) -> None:
    mesh.policy("orders", RETRIED)
    mesh.respond("orders", [503, 200])
    with mesh.http_client() as http:
        http.get("mesh://orders/v1/42")
    assert heard.moments == [
        "call GET",
        f"http to {ONE}",
        "came to 503 503",
        f"http to {ONE}",
        "came to 200 OK",
        "over",
    ]
    assert [attempt.error for attempt in heard.calls[0].attempts] == ["503", ""]


def test_an_attempt_is_over_when_its_body_was_read(mesh: FakeMesh, heard: Heard) -> None:
    mesh.respond("orders", Reply(body="a long story"))
    with mesh.http_client() as http, http.stream("GET", "mesh://orders/") as answer:
        assert heard.moments == ["call GET", f"http to {ONE}"]
        answer.read()
    assert heard.moments[2:] == ["came to 200 OK", "over"]


def test_an_answer_that_the_caller_keeps_although_it_is_bad_is_over_when_it_was_read(
    mesh: FakeMesh, heard: Heard
) -> None:
    mesh.respond("orders", 500)
    session = requests.Session()
    session.mount("mesh://", mesh.requests_adapter())
    answer = session.get("mesh://orders/", stream=True)
    assert heard.moments == ["call GET", f"http to {ONE}"]
    assert answer.content is not None
    assert heard.moments[2:] == ["came to 500 500", "over"]


def test_an_attempt_begins_when_it_is_sent_and_not_when_it_waits_for_its_turn(mesh: FakeMesh) -> None:
    begun: list[float] = []

    class Begun(Hooks):
        def attempt_started(self, call: Call, dispatch: Any) -> None:
            begun.append(mesh.clock.now() - call.began)

    with FakeMesh(hooks=[Begun()], clock=mesh.clock) as waiting:
        waiting.add("orders", "10.0.0.1:80")
        waiting.policy("orders", "default: {limit: {rate: 1/s, burst: 1, wait: 5s}}")
        waiting.respond("orders", 200)
        with waiting.http_client() as http:
            http.get("mesh://orders/")
            http.get("mesh://orders/")
    assert begun == pytest.approx([0.0, 1.0])


def test_a_refused_call_begins_and_ends_with_what_refused_it(mesh: FakeMesh, heard: Heard) -> None:
    mesh.policy("orders", "default: {limit: {rate: 1/h}}")
    mesh.pick("orders").done()
    heard.moments.clear()
    with pytest.raises(RateLimited) as caught:
        mesh.pick("orders")
    assert heard.moments == ["call", "refused: RateLimited"]
    assert heard.errors[-1] is caught.value


def test_a_call_that_finds_nobody_for_its_next_attempt_ends_with_that(mesh: FakeMesh, heard: Heard) -> None:
    mesh.policy("orders", RETRIED)

    def vanish(request: Any) -> int:
        mesh.remove("orders")
        return 503

    mesh.respond("orders", vanish)
    with mesh.http_client() as http, pytest.raises(NoEndpoints):
        http.get("mesh://orders/")
    assert heard.moments == ["call GET", f"http to {ONE}", "came to 503 503", "refused: NoEndpoints"]
    counted = mesh.callee("orders").statistics.read()
    assert (counted.calls, counted.attempts, counted.failures) == (1, 1, 1)


def test_a_guarded_function_is_an_attempt(mesh: FakeMesh, heard: Heard) -> None:
    mesh.policy("orders", RETRIED)
    failing = [True, False]

    @mesh.guard("orders", method="Charge", idempotent=True)
    def charge(order: int, *, endpoint: Any) -> int:
        if failing.pop(0):
            raise RuntimeError("not now")
        return order

    assert charge(7) == 7
    assert heard.moments == [
        "call Charge",
        f"attempt to {ONE}",
        "came to exception",
        f"attempt to {ONE}",
        "came to OK",
        "over",
    ]


def test_a_guarded_function_that_takes_no_endpoint_is_sent_to_nobody_that_is_known(
    mesh: FakeMesh, heard: Heard
) -> None:
    assert mesh.guard("orders")(lambda: 7)() == 7
    assert heard.moments == ["call", "attempt to nobody", "came to OK", "over"]


def test_attempts_and_picks_are_told_too(mesh: FakeMesh, heard: Heard) -> None:
    for attempt in mesh.attempts("orders"):
        with attempt as endpoint:
            assert endpoint.id == ONE
    with suppress(RuntimeError), mesh.pick("orders"):
        raise RuntimeError("it did not work")
    assert heard.moments == [
        *("call", f"attempt to {ONE}", "came to OK", "over"),
        *("call", f"attempt to {ONE}", "came to exception", "over"),
    ]


async def test_a_call_that_is_cancelled_is_over_once() -> None:
    heard, begun = Heard(), asyncio.Event()
    async with FakeAsyncMesh(hooks=[heard]) as mesh:
        mesh.add("orders", "10.0.0.1:80")

        @mesh.guard("orders")
        async def hang(*, endpoint: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(hang())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert heard.moments == ["call", f"attempt to {ONE}", "came to cancelled", "over"]


async def test_aiohttp_tells_the_same() -> None:
    heard = Heard()
    async with FakeAsyncMesh(hooks=[heard]) as mesh:
        mesh.add("orders", "10.0.0.1:80")
        mesh.respond("orders", 404)
        async with mesh.aiohttp_session() as session, session.get("mesh://orders/") as answer:
            await answer.read()
    assert heard.moments == ["call GET", f"http to {ONE}", "came to 404 404", "over"]


def test_every_beginning_has_one_end_under_many_threads() -> None:
    heard = Heard()
    mesh = KnownMesh(endpoint_at(1), endpoint_at(2, "b"), hooks=[heard])

    def work(*, endpoint: Any) -> None:
        if endpoint.id == "b":
            raise RuntimeError("no")

    guarded = Guarded(work, ready=lambda: mesh.service, discover=lambda: mesh.service).wrapped()

    def shop() -> None:
        for _ in range(100):
            with suppress(RuntimeError):
                guarded()

    threads = [threading.Thread(target=shop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = Counter(moment.partition(" to ")[0] for moment in heard.moments)
    assert counts == {"call": 800, "attempt": 800, "came": 800, "over": 800}
    assert mesh.in_flight == 0


# Fallbacks


def test_a_fallback_is_counted_and_told_after_the_end_of_its_call(mesh: FakeMesh, heard: Heard) -> None:
    mesh.policy("orders", "default: {fallback: {value: {total: 0}}, retry: off}")
    mesh.respond("orders", 503)
    with mesh.http_client() as http:
        assert http.get("mesh://orders/").json() == {"total": 0}
    assert heard.moments[-2:] == ["over", "fallback value"]
    assert mesh.callee("orders").statistics.read().fallbacks == 1


def test_another_service_that_stands_in_is_counted_by_the_one_that_failed(mesh: FakeMesh, heard: Heard) -> None:
    mesh.policy("orders", "default: {fallback: {service: archive}, retry: off}")
    mesh.add("archive", "10.0.0.2:80")
    mesh.respond("orders", 503)
    mesh.respond("archive", 200)
    with mesh.http_client() as http:
        assert http.get("mesh://orders/").extensions["trimtab"].fallback == "archive"
    assert "fallback archive" in heard.moments
    assert mesh.callee("orders").statistics.read().fallbacks == 1
    assert mesh.callee("archive").statistics.read().fallbacks == 0


def test_the_fallback_of_a_guard_is_counted_when_it_has_an_answer(mesh: FakeMesh, heard: Heard) -> None:
    def instead(broken: bool) -> str:
        if broken:
            raise ValueError("nor is there anything else")
        return "instead"

    @mesh.guard("orders", fallback=instead)
    def charge(broken: bool) -> str:
        raise RuntimeError("no")

    assert charge(False) == "instead"
    with pytest.raises(ValueError, match="nor is there"):
        charge(True)
    assert mesh.callee("orders").statistics.read().fallbacks == 1
    assert heard.moments.count("fallback function") == 1


# What hooks may and may not do


@pytest.mark.parametrize("kind", ["httpx", "requests"])
def test_what_a_hook_puts_into_the_headers_is_sent_in_place_of_the_callers_own(kind: str) -> None:
    with FakeMesh(hooks=[Heard(traceparent="of the hook")]) as mesh:
        mesh.add("orders", "10.0.0.1:80")
        sent: list[Any] = []
        mesh.respond("orders", lambda request: sent.append(request) or 200)
        own = {"TraceParent": "of the caller", "x-other": "stays"}
        if kind == "httpx":
            with mesh.http_client() as http:
                http.get("mesh://orders/", headers=own)
        else:
            session = requests.Session()
            session.mount("mesh://", mesh.requests_adapter())
            session.get("mesh://orders/", headers=own)
    headers = {name.lower(): value for name, value in sent[0].headers.items()}
    assert (headers["traceparent"], headers["x-other"]) == ("of the hook", "stays")


def test_a_hook_that_fails_is_logged_once_and_reaches_no_call(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Hooks):
        def attempt_started(self, call: Call, dispatch: Any) -> None:
            raise LookupError("no such thing")

        def call_ended(self, call: Call, error: Exception | None) -> None:
            raise LookupError("nor this")

    heard = Heard()
    with FakeMesh(hooks=[Broken(), heard]) as mesh, caplog.at_level(logging.ERROR, "trimtab"):
        mesh.add("orders", "10.0.0.1:80")
        for _ in range(3):
            assert mesh.guard("orders")(lambda: 7)() == 7
    assert heard.moments.count("over") == 3
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert all(line.startswith("hook.failed: ") and "Broken" in line for line in told)


def test_what_a_mesh_was_given_it_shows() -> None:
    heard = Heard()
    with FakeMesh(hooks=[heard]) as mesh:
        assert mesh.hooks == (heard,)
    assert FakeAsyncMesh(hooks=[heard]).hooks == (heard,)
