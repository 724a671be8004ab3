"""Calls whose copies race, driven as callers drive them: by asyncio in virtual time, and on threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.calling.context import remaining, within
from trimtab.calling.crew import RealCrew
from trimtab.calling.guard import Guarded
from trimtab.core.calling.call import Call
from trimtab.core.endpoints import Endpoint
from trimtab.errors import DeadlineExceeded, RetriesExhausted
from trimtab.testing import FakeAsyncMesh, Reply

from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at

THREE = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
POLICY = "default: {hedge: {delay: 100ms, attempts: 3}}"


def prepare(mesh: FakeAsyncMesh, policy: str = POLICY) -> None:
    mesh.add("orders", *THREE)
    mesh.policy("orders", policy)


def errors(call: Call) -> list[str]:
    return [attempt.error for attempt in call.attempts]


class TestAwaited:
    async def test_a_copy_overtakes_a_slow_first_attempt(self, fake_async_mesh: FakeAsyncMesh) -> None:
        prepare(fake_async_mesh)
        fake_async_mesh.respond("orders", [Reply(latency=2.0, body="slow"), Reply(latency=0.02, body="fast")])
        began = fake_async_mesh.clock.now()
        async with fake_async_mesh.http_client() as http:
            answer = await http.get("mesh://orders/")
        assert answer.text == "fast"
        assert fake_async_mesh.clock.now() - began == pytest.approx(0.12)
        call = answer.extensions["trimtab"]
        assert errors(call) == ["cancelled", ""]
        assert call.attempts[0].endpoint != call.attempts[1].endpoint == call.endpoint
        await fake_async_mesh.clock.pause(0)
        assert fake_async_mesh.in_flight == (0, 0)
        assert fake_async_mesh.calls("orders") == [call]

    async def test_an_answer_in_time_is_all_there_is(self, fake_async_mesh: FakeAsyncMesh) -> None:
        prepare(fake_async_mesh)
        fake_async_mesh.respond("orders", Reply(latency=0.05))
        async with fake_async_mesh.http_client() as http:
            answer = await http.get("mesh://orders/")
        assert errors(answer.extensions["trimtab"]) == [""]

    async def test_a_failure_is_followed_by_the_next_copy_at_once(self, fake_async_mesh: FakeAsyncMesh) -> None:
        prepare(fake_async_mesh)
        fake_async_mesh.respond("orders", [503, ConnectionResetError, Reply(latency=0.01)])
        began = fake_async_mesh.clock.now()
        async with fake_async_mesh.http_client() as http:
            answer = await http.get("mesh://orders/")
        assert answer.status_code == 200
        assert errors(answer.extensions["trimtab"]) == ["503", "connection reset", ""]
        assert fake_async_mesh.clock.now() - began == pytest.approx(0.01)

    async def test_when_all_fail_the_last_answer_is_the_calls(self, fake_async_mesh: FakeAsyncMesh) -> None:
        prepare(fake_async_mesh)
        fake_async_mesh.respond("orders", [503, 502, Reply(status=500, body="last")])
        async with fake_async_mesh.http_client() as http:
            answer = await http.get("mesh://orders/")
        assert (answer.status_code, answer.text) == (500, "last")
        assert errors(answer.extensions["trimtab"]) == ["503", "502", "500"]
        assert fake_async_mesh.in_flight == (0, 0)

    async def test_when_all_break_the_error_tells_each(self, fake_async_mesh: FakeAsyncMesh) -> None:
        prepare(fake_async_mesh)
        fake_async_mesh.respond("orders", ConnectionResetError)
        async with fake_async_mesh.http_client() as http:
            with pytest.raises(RetriesExhausted) as caught:
                await http.get("mesh://orders/")
        assert len(caught.value.attempts) == 3
        assert fake_async_mesh.in_flight == (0, 0)

    async def test_what_may_not_be_repeated_has_one_copy(self, fake_async_mesh: FakeAsyncMesh) -> None:
        prepare(fake_async_mesh)
        fake_async_mesh.respond("orders", Reply(latency=1.0))

        async def stream() -> Any:
            yield b"once"

        async with fake_async_mesh.http_client() as http:
            for told in (
                await http.post("mesh://orders/", content=b"charge"),
                await http.put("mesh://orders/", content=stream()),
            ):
                assert errors(told.extensions["trimtab"]) == [""]
            keyed = await http.post("mesh://orders/", content=b"charge", headers={"idempotency-key": "7"})
        assert len(keyed.extensions["trimtab"].attempts) == 3

    async def test_what_may_not_be_raced_is_still_tried_again_as_retry_says(
        self, fake_async_mesh: FakeAsyncMesh
    ) -> None:
        prepare(fake_async_mesh)
        fake_async_mesh.policy("*", "default: {retry: {on: [503], when: always, backoff: 1s..1s}}")
        fake_async_mesh.respond("orders", [503, 200])
        began = fake_async_mesh.clock.now()
        async with fake_async_mesh.http_client() as http:
            assert (await http.post("mesh://orders/")).status_code == 200
        assert fake_async_mesh.clock.now() - began >= 0.8

    async def test_a_fallback_stands_in_when_all_copies_failed(self, fake_async_mesh: FakeAsyncMesh) -> None:
        prepare(fake_async_mesh, "default: {hedge: 100ms, fallback: {value: {price: 7}}}")
        fake_async_mesh.respond("orders", 503)
        async with fake_async_mesh.http_client() as http:
            answer = await http.get("mesh://orders/")
        assert answer.json() == {"price": 7}
        assert answer.extensions["trimtab"].fallback == "value"
        assert fake_async_mesh.in_flight == (0, 0)

    async def test_the_deadline_ends_all_copies(self, fake_async_mesh: FakeAsyncMesh) -> None:
        prepare(fake_async_mesh, "default: {hedge: {delay: 100ms, attempts: 3}, timeout: 250ms}")
        fake_async_mesh.respond("orders", Reply(latency=60))
        began = fake_async_mesh.clock.now()
        async with fake_async_mesh.http_client() as http:
            with pytest.raises(DeadlineExceeded):
                await http.get("mesh://orders/")
        assert fake_async_mesh.clock.now() - began == pytest.approx(0.25)
        assert fake_async_mesh.in_flight == (0, 0)

    async def test_a_bad_answer_that_waits_for_the_next_copy_is_given_back_when_the_caller_gives_up(
        self, fake_async_mesh: FakeAsyncMesh
    ) -> None:
        prepare(fake_async_mesh)
        fake_async_mesh.respond("orders", Reply(status=503, headers={"retry-after": "9"}))
        async with fake_async_mesh.http_client() as http:
            asking = asyncio.create_task(http.get("mesh://orders/"))
            await fake_async_mesh.clock.pause(5)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            (transport,) = [mounted for mounted in http._mounts.values() if hasattr(mounted, "pools")]
            assert [slot.in_use for slot in transport.pools._slots.values()] == [False]
        (call,) = fake_async_mesh.calls("orders")
        assert errors(call) == ["503"]
        assert fake_async_mesh.in_flight == (0, 0)

    @pytest.mark.parametrize("turns", range(12))
    async def test_a_caller_that_gives_up_leaves_nothing_behind(
        self, fake_async_mesh: FakeAsyncMesh, turns: int
    ) -> None:
        prepare(fake_async_mesh, "default: {hedge: {delay: 0s, attempts: 3}, concurrency: 1}")
        left: list[str] = []

        @fake_async_mesh.guard("orders", idempotent=True)
        async def hang(*, endpoint: Endpoint) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                left.append(endpoint.id)

        call = asyncio.create_task(hang())
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert fake_async_mesh.in_flight == (0, 0)
        assert len(left) == len(set(left)) <= 3
        assert asyncio.all_tasks() == {asyncio.current_task()}
        # The one place is free again.
        quick = fake_async_mesh.guard("orders")(_quick)
        assert await quick() is None

    async def test_a_winner_is_not_held_up_by_a_loser_that_takes_its_time_to_end(
        self, fake_async_mesh: FakeAsyncMesh
    ) -> None:
        prepare(fake_async_mesh)
        may_end, ended = asyncio.Event(), asyncio.Event()
        sent = 0

        @fake_async_mesh.guard("orders", idempotent=True)
        async def call(*, endpoint: Endpoint) -> int:
            nonlocal sent
            sent += 1
            if sent == 2:
                return 2
            try:
                await asyncio.Event().wait()
            finally:
                await may_end.wait()
                ended.set()
            return 1

        assert await call() == 2
        assert not ended.is_set()
        assert fake_async_mesh.in_flight == (0, 1), "it is still there"
        may_end.set()
        await ended.wait()
        await asyncio.sleep(0)
        assert fake_async_mesh.in_flight == (0, 0)

    async def test_an_exception_that_is_not_the_callees_fault_ends_the_race(
        self, fake_async_mesh: FakeAsyncMesh
    ) -> None:
        prepare(fake_async_mesh)
        sent: list[str] = []

        @fake_async_mesh.guard("orders", idempotent=True, ignore=(KeyError,))
        async def call(*, endpoint: Endpoint) -> None:
            sent.append(endpoint.id)
            raise KeyError("no such order")

        with pytest.raises(KeyError):
            await call()
        assert len(sent) == 1


async def _quick(*, endpoint: Endpoint) -> None:
    """Answers at once."""


@settings(max_examples=100, deadline=None)
@given(
    delay=st.sampled_from(["0s", "50ms"]),
    ends=st.lists(
        st.tuples(st.sampled_from([0.0, 0.03, 0.05, 0.2]), st.sampled_from(["good", "bad", "stubborn"])),
        min_size=3,
        max_size=3,
    ),
    gives_up_after=st.one_of(st.none(), st.sampled_from([0.0, 0.05, 0.1])),
)
def test_however_copies_interleave_nothing_is_held_in_the_end(
    delay: str, ends: list[tuple[float, str]], gives_up_after: float | None
) -> None:
    async def play() -> None:
        async with FakeAsyncMesh() as mesh:
            prepare(mesh, f"default: {{hedge: {{delay: {delay}, attempts: 3}}, concurrency: 1, timeout: 150ms}}")
            script = iter(ends)

            @mesh.guard("orders", idempotent=True)
            async def work(*, endpoint: Endpoint) -> str:
                seconds, kind = next(script)
                try:
                    await mesh.clock.pause(seconds)
                except asyncio.CancelledError:
                    if kind == "stubborn":
                        await mesh.clock.pause(0.01)
                        return kind
                    raise
                if kind == "bad":
                    raise ConnectionResetError(kind)
                return kind

            call: asyncio.Task[str] = asyncio.create_task(work())
            if gives_up_after is not None:
                await mesh.clock.pause(gives_up_after)
                call.cancel()
            done, _ = await asyncio.wait([call])
            assert done == {call}
            assert call.cancelled() or call.exception() is not None or call.result() in ("good", "stubborn")
            await mesh.clock.pause(1.0)
            assert mesh.in_flight == (0, 0)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(play())


class Blocking:
    """A guarded function of a program with threads, whose copies do as they are told."""

    def __init__(self, policy: str, crew: RealCrew | None = None) -> None:
        self.mesh = KnownMesh(endpoint_at(1, "a"), endpoint_at(2, "b"), endpoint_at(3, "c"), policy=policy, crew=crew)
        self.acts: dict[str, Callable[[], Any]] = {}
        self.threads: dict[str, threading.Thread] = {}

        def work(*, endpoint: Endpoint) -> Any:
            self.threads[endpoint.id] = threading.current_thread()
            return self.acts[endpoint.id]()

        guarded = Guarded(
            work,
            ready=lambda: self.mesh.service,
            discover=lambda: self.mesh.service,
            elsewhere=self.mesh.callee,
            idempotent=True,
        )
        self.call: Any = guarded.wrapped()

    def settled(self) -> bool:
        """Nothing is in flight any more, within a few seconds."""
        deadline = time.monotonic() + 10
        while self.mesh.in_flight and time.monotonic() < deadline:
            time.sleep(0.005)
        return not self.mesh.in_flight


def fails() -> None:
    raise ConnectionResetError("reset")


class TestBlocking:
    def test_a_copy_overtakes_one_that_hangs_and_which_counts_when_it_ends(self) -> None:
        going_on = threading.Event()
        blocking = Blocking("default: {hedge: 1ms}")
        blocking.acts = {"a": lambda: going_on.wait(10), "b": lambda: "fast"}
        value, call = blocking.call.traced()
        assert value == "fast"
        assert errors(call) == ["cancelled", ""]
        assert blocking.mesh.in_flight == 1
        assert blocking.mesh.outcomes == [("b", True)]
        going_on.set()
        assert blocking.settled()
        assert blocking.mesh.outcomes == [("a", True), ("b", True)]

    def test_when_all_fail_the_last_failure_is_the_calls(self) -> None:
        blocking = Blocking("default: {hedge: {delay: 1m, attempts: 3}}")
        blocking.acts = {"a": fails, "b": fails, "c": fails}
        with pytest.raises(ConnectionResetError) as caught:
            blocking.call()
        assert len(caught.value.trimtab.attempts) == 3  # type: ignore[attr-defined]
        assert blocking.settled()

    def test_a_call_that_finds_no_thread_free_is_made_by_its_caller(self) -> None:
        blocking = Blocking("default: {hedge: {delay: 0s, attempts: 3}}", RealCrew(limit=0))
        blocking.acts = {"a": fails, "b": lambda: "b"}
        value, call = blocking.call.traced()
        assert value == "b"
        assert errors(call) == ["reset", ""]
        assert set(blocking.threads.values()) == {threading.current_thread()}

    def test_a_thread_that_is_held_up_is_not_waited_for_by_the_crew_either(self) -> None:
        crew, going_on = RealCrew(limit=1), threading.Event()
        blocking = Blocking("default: {hedge: {delay: 0s, attempts: 2}}", crew)
        blocking.acts = {"a": lambda: going_on.wait(10) and "a", "b": lambda: "b"}
        caller = threading.Thread(target=blocking.call)
        caller.start()
        while "a" not in blocking.threads:
            time.sleep(0.001)
        # The one thread is with a: the next call is made by its caller.
        assert blocking.call() == "b"
        assert blocking.threads["b"] is threading.current_thread()
        going_on.set()
        caller.join(10)
        assert blocking.settled()

    def test_many_callers_leave_nothing_behind(self) -> None:
        blocking = Blocking("default: {hedge: {delay: 1ms, attempts: 3}, concurrency: 8}")
        blocking.acts = {"a": lambda: time.sleep(0.01), "b": fails, "c": lambda: time.sleep(0.001)}

        def call() -> None:
            for _ in range(20):
                with contextlib.suppress(ConnectionResetError):  # once the budget is spent
                    blocking.call()

        callers = [threading.Thread(target=call) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(60)
        assert blocking.settled()
        assert blocking.mesh.service.statistics.read().calls == 160

    def test_what_the_caller_inherits_its_copies_inherit(self) -> None:
        left: list[float | None] = []
        blocking = Blocking("default: {hedge: 0s}")
        blocking.acts = {id_: lambda: left.append(remaining()) for id_ in "abc"}
        with within(60):
            blocking.call()
        assert blocking.settled()
        assert all(seconds is not None and seconds <= 60 for seconds in left)


def test_a_crew_starts_threads_as_they_are_needed_and_no_more_than_it_may() -> None:
    crew, going_on, done = RealCrew(limit=2), threading.Event(), threading.Semaphore(0)

    def work() -> None:
        going_on.wait(10)
        done.release()

    assert [crew.start(work) for _ in range(3)] == [True, True, False]
    going_on.set()
    assert done.acquire(timeout=10)
    assert done.acquire(timeout=10)
    while not crew.free:
        time.sleep(0.001)
    assert crew.start(done.release)
    assert done.acquire(timeout=10)
    crew.close()
    assert not crew.start(work)


def test_a_crew_goes_on_after_work_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    crew, done = RealCrew(limit=1), threading.Event()
    crew.start(fails)
    while not crew.start(done.set):
        time.sleep(0.001)
    assert done.wait(10)
    assert "work beside a call failed" in caplog.text
    crew.close()
