"""Calls over gRPC, blocking and awaited: one set of sentences for both."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from trimtab.calling.context import Marks, marks, within
from trimtab.errors import (
    CircuitOpen,
    DeadlineExceeded,
    NoEndpoints,
    Overloaded,
    RateLimited,
    RetriesExhausted,
    TrimtabError,
)

from tests.unit.sdk_grpc.shop import (
    NUMBERS,
    RETRIED,
    UNAVAILABLE,
    Caller,
    Shop,
    both,
    failure,
)
from tests.unit.sdk_http.known_mesh import endpoint_at, refusing_endpoint

# What a call is


async def test_stubs_work_unchanged_in_all_four_kinds(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port))
    async with caller.stub(mesh) as stub:
        assert (await caller.charge(stub, "42"))[0] == "a 42"
        assert [value async for value in caller.watch(stub, "all")] == ["a 0", "a 1", "a 2"]
        assert await caller.upload(stub, NUMBERS) == "one,two,three"
        assert await caller.talk(stub, NUMBERS) == ["ONE", "TWO", "THREE"]
    assert mesh.in_flight == 0
    assert mesh.outcomes == [("a", True)] * 4


async def test_metadata_goes_both_ways_and_the_call_carries_its_trace(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port))
    async with caller.stub(mesh) as stub:
        _, call = await caller.charge(stub, "42", metadata=(("who", "me"), ("raw-bin", b"\x00\xff")))
        assert dict(iter(await caller.told(call.initial_metadata)))["hello"] == "a"
        assert dict(iter(await caller.told(call.trailing_metadata)))["served-by"] == "a"
        assert await caller.told(call.code) is grpc.StatusCode.OK
    assert shop.seen[0].metadata["who"] == "me"
    assert shop.seen[0].metadata["raw-bin"] == b"\x00\xff"
    assert "trimtab-priority" not in shop.seen[0].metadata
    assert call.trimtab.endpoint.port == shop.port
    assert call.trimtab.policy == 7


async def test_a_policy_names_a_method_with_or_without_its_service(caller: Caller, shop: Shop) -> None:
    policy = """
default: {}
routes:
  - {match: {method: shop.Orders/Charge}, limit: {rate: 1/h, burst: 1}}
  - {match: {method: Watch, header: {who: nobody}}, limit: {rate: 1/h, burst: 1}}
"""
    async with caller.stub(caller.mesh(endpoint_at(shop.port), policy=policy)) as stub:
        await caller.charge(stub, "42")
        assert isinstance(await failure(caller, stub, "42"), RateLimited)
        for _ in range(3):
            assert len([value async for value in caller.watch(stub, "", metadata=(("who", "me"),))]) == 3
        assert len([value async for value in caller.watch(stub, "", metadata=(("who", "nobody"),))]) == 3
        with pytest.raises(RateLimited):
            assert [value async for value in caller.watch(stub, "", metadata=(("who", "nobody"),))] == []


async def test_compressed_calls_are_understood(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port))
    long = "long " * 10_000
    async with caller.stub(mesh, compression=grpc.Compression.Gzip) as stub:
        assert (await caller.charge(stub, long))[0] == f"a {long}"
        assert (await caller.charge(stub, long, compression=grpc.Compression.Deflate))[0] == f"a {long}"


async def test_fifty_calls_at_once_are_told_apart(caller: Caller, shop: Shop, other: Shop) -> None:
    mesh = caller.mesh(*both(shop, other))
    async with caller.stub(mesh) as stub:
        answers = await asyncio.gather(*(caller.charge(stub, str(number)) for number in range(50)))
    assert [value.split()[1] for value, _ in answers] == [str(number) for number in range(50)]
    assert {value.split()[0] for value, _ in answers} == {"a", "b"}
    assert mesh.in_flight == 0
    assert len(mesh.outcomes) == 50


# What is tried again


async def test_an_unavailable_is_tried_again_elsewhere_when_a_policy_permits_it(
    caller: Caller, shop: Shop, other: Shop
) -> None:
    shop.failing = 2
    mesh = caller.mesh(*both(shop, other), policy=RETRIED)
    async with caller.stub(mesh) as stub:
        value, call = await caller.charge(stub, "42")
        assert value == "b 42"
        answers = [[value async for value in caller.watch(stub, "all")] for _ in range(2)]
        assert ["b 0", "b 1", "b 2"] in answers
    assert [attempt.endpoint.id for attempt in call.trimtab.attempts] == ["a", "b"]
    assert call.trimtab.attempts[0].error == "UNAVAILABLE: not now"
    assert mesh.outcomes.count(("a", False)) == 2
    assert mesh.in_flight == 0


async def test_what_nobody_wrote_down_is_only_tried_again_where_the_caller_says_that_it_does_no_harm(
    caller: Caller, shop: Shop, other: Shop
) -> None:
    shop.failing = 100
    async with caller.stub(caller.mesh(*both(shop, other))) as stub:
        assert (await failure(caller, stub, "42")).code() is UNAVAILABLE
    async with caller.stub(caller.mesh(*both(shop, other))) as stub:
        assert (await caller.charge(stub, "42", metadata=(("idempotency-key", "42"),)))[0] == "b 42"
    for name in ("Charge", "shop.Orders/Charge"):
        async with caller.stub(caller.mesh(*both(shop, other)), idempotent={name}) as stub:
            assert (await caller.charge(stub, "42"))[0] == "b 42"


async def test_a_code_that_the_policy_does_not_name_is_final(caller: Caller, shop: Shop, other: Shop) -> None:
    mesh = caller.mesh(*both(shop, other), policy=RETRIED)
    async with caller.stub(mesh) as stub:
        error = await failure(caller, stub, "fail with NOT_FOUND")
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "as asked")
    assert len(error.trimtab.attempts) == 1
    # Whoever asks for what is not there does not show that the callee fails.
    assert ("a", False) not in mesh.outcomes


async def test_every_attempt_is_told_of_a_call_that_none_succeeded_of(caller: Caller, shop: Shop, other: Shop) -> None:
    shop.failing = other.failing = 100
    mesh = caller.mesh(*both(shop, other), policy=RETRIED)
    async with caller.stub(mesh) as stub:
        error = await failure(caller, stub, "42")
    assert isinstance(error, RetriesExhausted)
    assert (error.code(), error.details()) == (UNAVAILABLE, "not now")
    assert [attempt.endpoint.id for attempt in error.attempts][:2] == ["a", "b"]
    assert len(error.attempts) == 3
    assert error.code == "call.retries_exhausted"
    assert mesh.in_flight == 0


async def test_a_callee_that_pushes_back_is_left_alone(caller: Caller, shop: Shop, other: Shop) -> None:
    shop.failing, shop.trailing = 1, (("grpc-retry-pushback-ms", "-1"),)
    async with caller.stub(caller.mesh(*both(shop, other), policy=RETRIED)) as stub:
        assert len((await failure(caller, stub, "42")).trimtab.attempts) == 1


async def test_response_headers_commit_a_call_to_its_attempt(caller: Caller, shop: Shop, other: Shop) -> None:
    async with caller.stub(caller.mesh(*both(shop, other), policy=RETRIED)) as stub:
        error = await failure(caller, stub, "greet and fail")
    assert len(error.trimtab.attempts) == 1
    assert dict(iter(error.initial_metadata()))["hello"] == "a"


async def test_a_stream_that_breaks_in_the_middle_failed_and_is_not_begun_again(
    caller: Caller, shop: Shop, other: Shop
) -> None:
    mesh = caller.mesh(*both(shop, other), policy=RETRIED)
    got = []
    async with caller.stub(mesh) as stub:
        with pytest.raises(caller.failed) as caught:
            async for value in caller.watch(stub, "break at 2"):
                got.append(value)  # noqa: PERF401 -- what came before it broke counts
    assert got == ["a 0", "a 1"]
    assert (caught.value.code(), caught.value.details()) == (UNAVAILABLE, "broke")  # type: ignore[attr-defined]
    assert not other.seen
    assert mesh.outcomes == [("a", False)]
    assert mesh.in_flight == 0


async def test_a_refused_connection_moves_on_to_another_endpoint_whatever_the_policy(
    caller: Caller, shop: Shop
) -> None:
    mesh = caller.mesh(
        refusing_endpoint("dead"), refusing_endpoint("dead too"), endpoint_at(shop.port), policy="default: {retry: off}"
    )
    async with caller.stub(mesh) as stub:
        for _ in range(3):
            assert (await caller.charge(stub, "42"))[0] == "a 42"
            assert [value async for value in caller.watch(stub, "all")] == ["a 0", "a 1", "a 2"]
            assert await caller.upload(stub, NUMBERS) == "one,two,three"
            assert await caller.talk(stub, NUMBERS) == ["ONE", "TWO", "THREE"]
    assert ("dead", False) in mesh.outcomes
    assert mesh.in_flight == 0


async def test_three_refused_connections_end_a_call(caller: Caller) -> None:
    mesh = caller.mesh(*(refusing_endpoint(f"dead {number}") for number in range(5)))
    async with caller.stub(mesh) as stub:
        error = await failure(caller, stub, "42")
    assert error.code() is UNAVAILABLE
    assert [attempt.endpoint.id for attempt in error.trimtab.attempts] == ["dead 0", "dead 1", "dead 2"]


async def test_requests_that_were_sent_are_not_sent_again(caller: Caller, shop: Shop, other: Shop) -> None:
    shop.failing = 1
    async with caller.stub(caller.mesh(*both(shop, other), policy=RETRIED)) as stub:
        with pytest.raises(caller.failed) as caught:
            await caller.upload(stub, NUMBERS)
    assert len(caught.value.trimtab.attempts) == 1  # type: ignore[attr-defined]
    assert not other.seen


# How long a call may take


async def test_the_callee_is_told_how_long_it_has(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), policy="default: {timeout: {total: 100s, attempt: 50s}}")
    async with caller.stub(mesh) as stub:
        await caller.charge(stub, "42")
        await caller.charge(stub, "42", timeout=20)
        with within(10):
            await caller.charge(stub, "42", timeout=20)
            assert [value async for value in caller.watch(stub, "all")] == ["a 0", "a 1", "a 2"]
        assert [value async for value in caller.watch(stub, "all")] == ["a 0", "a 1", "a 2"]
    told = [seen.remaining for seen in shop.seen]
    for remaining, most in zip(told[:4], (50, 20, 10, 10), strict=True):
        assert remaining is not None
        assert most - 5 < remaining < most + 1  # gRPC rounds it up a little
    # A policy's timeout is over when the answer begins: a stream may go on for as long as its caller likes.
    assert told[4] is None or told[4] > 1000


async def test_what_is_built_in_holds_for_single_calls_and_for_no_stream(caller: Caller, shop: Shop) -> None:
    async with caller.stub(caller.mesh(endpoint_at(shop.port))) as stub:
        await caller.charge(stub, "42")
        assert [value async for value in caller.watch(stub, "all")] == ["a 0", "a 1", "a 2"]
        await caller.upload(stub, NUMBERS)
        await caller.talk(stub, NUMBERS)
    told = [seen.remaining or 1e9 for seen in shop.seen]
    assert told[0] < 16
    assert min(told[1:]) > 1000


async def test_a_call_that_takes_too_long_is_ended_and_its_callee_told(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port))
    async with caller.stub(mesh) as stub:
        error = await failure(caller, stub, "hang", timeout=0.05)
        assert await asyncio.to_thread(shop.left.wait, 10)
    assert isinstance(error, DeadlineExceeded)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert mesh.outcomes == [("a", False)]
    assert mesh.in_flight == 0


async def test_a_deadline_that_is_over_sends_nothing(caller: Caller, shop: Shop) -> None:
    async with caller.stub(caller.mesh(endpoint_at(shop.port))) as stub:
        assert isinstance(await failure(caller, stub, "42", timeout=0), DeadlineExceeded)
    assert not shop.seen


@pytest.mark.parametrize("condition", ["timeout", "DEADLINE_EXCEEDED"])
async def test_an_attempt_that_had_its_time_is_tried_elsewhere(
    caller: Caller, shop: Shop, other: Shop, condition: str
) -> None:
    policy = f"default: {{timeout: {{attempt: 400ms}}, retry: {{on: [{condition}], backoff: 1ms..1ms}}}}"
    mesh = caller.mesh(*both(shop, other), policy=policy)
    other.left.set()
    async with caller.stub(mesh) as stub:
        value, call = await caller.charge(stub, "hang", timeout=20)
        assert value == "b hang"
        shop.hanging.clear()
        shop.left.clear()
        assert mesh.service.state.tallies["a"].failures == 1
    assert [attempt.endpoint.id for attempt in call.trimtab.attempts] == ["a", "b"]


async def test_a_stream_whose_answer_does_not_begin_in_time_is_tried_elsewhere(
    caller: Caller, shop: Shop, other: Shop
) -> None:
    policy = "default: {timeout: {attempt: 400ms}, retry: {on: [timeout], backoff: 1ms..1ms}}"
    mesh = caller.mesh(*both(shop, other), policy=policy)
    other.left.set()
    async with caller.stub(mesh) as stub:
        assert [value async for value in caller.watch(stub, "hang")] == ["b 0", "b 1", "b 2"]
    assert [ok for _, ok in mesh.outcomes] == [False, True]


async def test_a_stream_that_began_in_time_may_go_on(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), policy="default: {timeout: {attempt: 400ms, total: 400ms}}")
    async with caller.stub(mesh) as stub:
        answers = caller.watch(stub, "pause at 1")
        assert await anext(answers) == "a 0"
        asyncio.get_running_loop().call_later(0.5, shop.going_on.set)
        assert [value async for value in answers] == ["a 1", "a 2"]


async def test_the_priority_of_the_call_being_served_is_handed_on(caller: Caller, shop: Shop) -> None:
    async with caller.stub(caller.mesh(endpoint_at(shop.port))) as stub:
        token = marks.set(Marks("low"))
        try:
            await caller.charge(stub, "42")
            await caller.charge(stub, "42", metadata=(("trimtab-priority", "high"),))
        finally:
            marks.reset(token)
    async with caller.stub(caller.mesh(endpoint_at(shop.port), policy="default: {priority: critical}")) as stub:
        await caller.charge(stub, "42")
    assert [seen.metadata["trimtab-priority"] for seen in shop.seen] == ["low", "high", "critical"]


# What keeps a call from being made


async def test_no_endpoint_is_an_error_of_the_mesh_and_of_grpc(caller: Caller) -> None:
    async with caller.stub(caller.mesh()) as stub:
        error = await failure(caller, stub, "42")
        assert isinstance(error, NoEndpoints)
        assert error.code() is UNAVAILABLE
        assert error.code == "service.no_endpoints"
        assert "no endpoint of orders is known" in error.details()
        with pytest.raises(NoEndpoints):
            assert [value async for value in caller.watch(stub, "all")] == []
        with pytest.raises(NoEndpoints):
            await caller.upload(stub, NUMBERS)


@pytest.mark.parametrize(
    ("section", "kind", "code"),
    [
        ("limit: {rate: 1/h, burst: 1}", RateLimited, "RESOURCE_EXHAUSTED"),
        ("breaker: {open_when: 1 in a row, scope: service}", CircuitOpen, "UNAVAILABLE"),
        ("concurrency: 1", Overloaded, "RESOURCE_EXHAUSTED"),
    ],
)
async def test_a_refusal_is_an_error_of_the_mesh_and_of_grpc(
    caller: Caller, shop: Shop, section: str, kind: type[TrimtabError], code: str
) -> None:
    async with caller.stub(caller.mesh(endpoint_at(shop.port), policy=f"default: {{{section}}}")) as stub:
        first = caller.begin(stub, "fail with UNAVAILABLE" if kind is CircuitOpen else "hang")
        if kind is CircuitOpen:
            assert await caller.told(first.code) is UNAVAILABLE
        else:
            assert await asyncio.to_thread(shop.hanging.wait, 10)
        error = await failure(caller, stub, "42")
        assert isinstance(error, kind)
        assert error.code().name == code
        assert len(shop.seen) == 1
        shop.left.set()


async def test_an_injected_fault_looks_like_the_callees_own(caller: Caller, shop: Shop) -> None:
    for status, code in (("UNAVAILABLE", "UNAVAILABLE"), ("503", "UNAVAILABLE"), ("404", "UNIMPLEMENTED")):
        policy = f"default: {{retry: off, fault: {{abort: {{status: {status}}}}}}}"
        async with caller.stub(caller.mesh(endpoint_at(shop.port), policy=policy)) as stub:
            assert (await failure(caller, stub, "42")).code().name == code
            with pytest.raises(caller.failed):
                assert [value async for value in caller.watch(stub, "all")] == []
    policy = "default: {fault: {delay: {time: 1ms}}}"
    async with caller.stub(caller.mesh(endpoint_at(shop.port), policy=policy)) as stub:
        assert (await caller.charge(stub, "42"))[0] == "a 42"
        assert await caller.talk(stub, NUMBERS) == ["ONE", "TWO", "THREE"]
    assert len(shop.seen) == 2
