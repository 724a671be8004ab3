"""Many callers at once, eight threads that are switched all the time or a thousand tasks: no call is lost or counted twice."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from trimtab.calling.guard import Guarded
from trimtab.core.breaking.breaker import State
from trimtab.core.calling.call import Call
from trimtab.core.calling.rules import Caller, Release
from trimtab.core.endpoints import HEALTHY, Endpoint, ServiceState
from trimtab.core.retrying.conditions import Outcome
from trimtab.discovery import Callee
from trimtab.errors import CircuitOpen, NoEndpoints, Overloaded, RateLimited, TrimtabError
from trimtab.policy.reading import read

THREADS = 8
EACH = 1_000
ALL = THREADS * EACH
FAILED = Outcome("503")

HALF_OPEN = """
    breaker: {scope: service, open_when: 5 in a row, open_for: 1s, probes: 3}
    outlier: off
"""
HEAD = "apiVersion: trimtab/v1\nkind: ServicePolicy\nmetadata: {name: orders, namespace: shop}\n"
EVERYTHING = """
    balance: {algorithm: p2c}
    breaker: {scope: endpoint, open_when: "failures >= 100% of 20 in 1h"}
    limit: {rate: 1000000/s, burst: 1000000}
    concurrency: 1000
    retry: {attempts: 3, budget: 20%}
    outlier: {consecutive: 1000, failure_percentage: {threshold: 100%}}
"""


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """A thread keeps the interpreter for a few microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def orders(policy: str, endpoints: int = 10) -> Callee:
    known = {f"e{i}": Endpoint(f"e{i}", "10.0.0.1", 8000 + i, 100, HEALTHY, "", {}) for i in range(endpoints)}
    document = f"{HEAD}spec:\n  default:{policy}"
    return Callee(
        "shop/orders",
        Caller("checkout", "", "me", "p2c", lambda: None),
        lambda callee: NoEndpoints("nobody", service=callee.name),
        ServiceState("shop/orders", 1, 1, known, known),
        {"shop/orders": Release(read(document), 7)},
        rng=random.Random(1),
    )


def at_once(work: Callable[[int], None]) -> None:
    """``work`` in every thread. Raises what one of them raised."""
    start = threading.Barrier(THREADS)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        start.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_eight_threads_lose_no_call_of_any_count() -> None:
    callee = orders(EVERYTHING)
    pipeline = callee.pipeline("")
    seen: list[Counter[tuple[str, bool]]] = [Counter() for _ in range(THREADS)]

    def work(number: int) -> None:
        for turn in range(EACH):
            call = pipeline.begin(pipeline.now(), idempotent=False)
            assert call.endpoint is not None
            failed = turn % 10 == number
            seen[number][call.endpoint.id, failed] += 1
            if failed:
                assert pipeline.failed(call, FAILED, "503", pipeline.now()) is None
                pipeline.over(call, pipeline.now())
            else:
                pipeline.answered(call, pipeline.now(), over=True)

    at_once(work)
    told = sum(seen, Counter[tuple[str, bool]]())
    tallies = callee.state.tallies
    assert {id_: tally.calls for id_, tally in tallies.items()} == {
        id_: told[id_, True] + told[id_, False] for id_ in tallies
    }
    assert {id_: tally.failures for id_, tally in tallies.items()} == {id_: told[id_, True] for id_ in tallies}
    assert [tally.in_flight for tally in tallies.values()] == [0] * 10
    assert pipeline.circuits is not None
    for id_, breaker in pipeline.circuits.breakers.items():
        counts = breaker.counts(pipeline.now())
        assert (counts.calls, counts.failed) == (told[id_, True] + told[id_, False], told[id_, True])
    counted = callee.statistics.read()
    assert (counted.calls, counted.failures) == (ALL, sum(n for (_, failed), n in told.items() if failed))
    assert counted.calls == sum(counted.latencies) == ALL
    for _ in range(1000):
        pipeline.begin(pipeline.now())
    with pytest.raises(Overloaded):
        # All places of the bulkhead had been given back, and none twice.
        pipeline.begin(pipeline.now())


@pytest.mark.parametrize("algorithm", ["round_robin", "p2c", "least_request", "random", "pick_first"])
def test_eight_threads_are_given_an_endpoint_for_each_call(algorithm: str) -> None:
    callee = orders(f"\n    balance: {{algorithm: {algorithm}}}\n")
    pipeline = callee.pipeline("")
    given: list[Counter[str]] = [Counter() for _ in range(THREADS)]

    def work(number: int) -> None:
        for _ in range(EACH):
            call = pipeline.begin(pipeline.now())
            assert call.endpoint is not None
            given[number][call.endpoint.id] += 1
            pipeline.answered(call, pipeline.now(), over=True)

    at_once(work)
    told = sum(given, Counter[str]())
    assert told.total() == ALL == sum(tally.calls for tally in callee.state.tallies.values())
    if algorithm == "round_robin":
        assert set(told.values()) == {ALL // 10}


def test_of_eight_threads_at_an_open_circuit_just_as_many_get_through_as_there_are_probes() -> None:
    callee = orders(HALF_OPEN)
    pipeline = callee.pipeline("")
    for _ in range(5):
        call = pipeline.begin(0.0)
        pipeline.failed(call, FAILED, "503", 0.0)
        pipeline.over(call, 0.0)
    probes: list[Call] = []
    refused: list[CircuitOpen] = []

    def work(number: int) -> None:
        for _ in range(EACH):
            try:
                probes.append(pipeline.begin(2.0))
            except CircuitOpen as error:
                refused.append(error)

    at_once(work)
    assert (len(probes), len(refused)) == (3, ALL - 3)
    for probe in probes:
        pipeline.answered(probe, 2.0, over=True)
    assert pipeline.circuits is not None
    assert pipeline.circuits.breakers[""].state is State.CLOSED


@pytest.mark.parametrize(
    ("section", "refusal"), [("limit: {rate: 1/h, burst: 777}", RateLimited), ("concurrency: 777", Overloaded)]
)
def test_eight_threads_get_no_more_through_a_limit_than_it_says(section: str, refusal: type[TrimtabError]) -> None:
    pipeline = orders(f"\n    {section}\n").pipeline("")
    admitted = [0] * THREADS

    def work(number: int) -> None:
        for _ in range(EACH):
            try:
                pipeline.begin(1.0)
                admitted[number] += 1
            except refusal:
                pass

    at_once(work)
    assert sum(admitted) == 777


def test_endpoints_and_policies_change_under_eight_threads_and_no_call_is_lost() -> None:
    callee = orders(EVERYTHING)
    every = dict(callee.state.endpoints)
    document = read(f"{HEAD}spec: {{default: {{timeout: 3s}}}}")
    made = [0] * THREADS
    ended = threading.Event()

    def change() -> None:
        rng = random.Random(2)
        revision = 8
        while not ended.is_set():
            left = {id_: every[id_] for id_ in rng.sample(sorted(every), 9)}
            callee.swap(ServiceState("shop/orders", revision, 1, left, left, tallies=callee.state.tallies))
            callee.prepare("shop/orders", Release(document, revision))()
            revision += 1

    def work(number: int) -> None:
        for _ in range(EACH):
            pipeline = callee.pipeline("")
            pipeline.answered(pipeline.begin(pipeline.now()), pipeline.now(), over=True)
            made[number] += 1

    changer = threading.Thread(target=change)
    changer.start()
    try:
        at_once(work)
    finally:
        ended.set()
        changer.join()
    assert sum(made) == callee.statistics.read().calls == sum(tally.calls for tally in callee.state.tallies.values())
    assert not any(tally.in_flight for tally in callee.state.tallies.values())


async def test_a_thousand_tasks_lose_no_call_of_any_count() -> None:
    callee = orders(EVERYTHING)
    told: Counter[tuple[str, bool]] = Counter()
    rng = random.Random(3)

    async def charge(fails: bool, *, endpoint: Endpoint) -> None:
        await asyncio.sleep(rng.random() / 100)
        told[endpoint.id, fails] += 1
        if fails:
            raise OSError("no answer")

    guarded = Guarded(charge, ready=lambda: callee, discover=lambda: callee).wrapped()
    answers = await asyncio.gather(
        *(guarded(fails) for fails in rng.sample([True, False], 1000, counts=[100, 900])), return_exceptions=True
    )
    assert Counter(map(type, answers)) == {type(None): 900, OSError: 100}
    tallies = callee.state.tallies
    assert {id_: (tally.calls, tally.failures, tally.in_flight) for id_, tally in tallies.items()} == {
        id_: (told[id_, True] + told[id_, False], told[id_, True], 0) for id_ in tallies
    }
    circuits = callee.pipeline("").circuits
    assert circuits is not None
    now = callee.pipeline("").now()
    assert {id_: breaker.counts(now).calls for id_, breaker in circuits.breakers.items()} == {
        id_: tally.calls for id_, tally in tallies.items()
    }
    counted = callee.statistics.read()
    assert (counted.calls, counted.failures) == (1000, 100)
