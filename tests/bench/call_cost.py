"""What the call path costs a call, without a network: beside a floor, and beside the usual packages put together.

Everything is timed in turns, a few hundred calls each, round after round, so that a machine that becomes slower does so
for all. CPU time of the thread. A figure is the median of the rounds, with the best one in brackets; a ratio is the median
of the ratios within a round. The function that is called does nothing but take an argument and an endpoint.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from trimtab.core.endpoints import Endpoint

from tests.bench import stacks
from tests.bench.offline import OfflineMesh
from tests.bench.report import Row

ROUNDS = 300
WARM_UP = 30
CALLS = 300  # of one subject in one round
ENDPOINTS = 10
METHOD = "Charge"
TARGET_SYNC, TARGET_ASYNC = 1.5e-6, 2.5e-6
TARGET_SHARE = 1 / 12
OFF = 1.05  # what is off costs nothing, and two figures of the same thing differ by a few percent

# The default of a service's policy.
ALL_ON = """\
timeout: {total: 3s, attempt: 1s}
limit: {rate: 1000000/s, burst: 1000000}
breaker: {scope: endpoint, open_when: failures >= 50% of 20 in 10s, open_for: 15s}
retry: {attempts: 3, on: [connect-failure, 503, UNAVAILABLE], backoff: 50ms..1s, budget: 20%}
"""
ALL_OFF = "\n".join(
    f"{section}: off" for section in ("limit", "throttle", "concurrency", "breaker", "fallback", "fault")
)
# Each of them added to what is built in.
FEATURES = {
    "timeout": "timeout: {total: 3s, attempt: 1s}",
    "limit": "limit: {rate: 1000000/s, burst: 1000000}",
    "throttle": "throttle: 2",
    "concurrency": "concurrency: 200",
    "concurrency, adaptive": "concurrency: {adaptive: gradient2}",
    "breaker, per endpoint": "breaker: {scope: endpoint, open_when: failures >= 50% of 20 in 10s}",
    "breaker, in a row": "breaker: {scope: service, open_when: 20 in a row}",
    "retry with a budget": "retry: {attempts: 3, on: 503, budget: 20%}",
    "outlier by success rate": "outlier: {consecutive: 5, success_rate: {}}",
    "split by version": "split: {weights: {'1': 90, '2': 10}}",
    "balance: round_robin": "balance: round_robin",
    "balance: ring_hash": "balance: {algorithm: ring_hash, hash: {argument: order}}",
    "fallback: cache": "fallback: {cache: 5m}",
}

BARE = Endpoint("10.0.0.1-8000", "10.0.0.1", 8000, 100, 1, "", {})


def work(order: int, *, endpoint: Endpoint) -> int:
    """The blocking function that is called."""
    return order


async def work_async(order: int, *, endpoint: Endpoint) -> int:
    """The awaited one."""
    return order


@dataclass
class Subject:
    """Something that is timed. ``seconds``: of one call, in each round."""

    call: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{self.median * 1e6:.2f} µs ({min(self.seconds) * 1e6:.2f})"

    def over(self, other: Subject) -> float:
        """How many times the other's."""
        return statistics.median(ours / its for ours, its in zip(self.seconds, other.seconds, strict=True))

    async def time(self) -> None:
        """One round."""
        call, arguments = self.call, self.arguments
        if asyncio.iscoroutinefunction(call):
            began = time.thread_time()
            for order in repeat(1, CALLS):
                await call(order, **arguments)
        else:
            began = time.thread_time()
            for order in repeat(1, CALLS):
                call(order, **arguments)
        self.seconds.append((time.thread_time() - began) / CALLS)


class Counters:
    """What the floor counts."""

    calls = failures = 0
    seconds = 0.0


def floor() -> Callable[[int], int]:
    """The least that a call path which learns anything can do: two looks at the clock, a try, two counters."""
    counters, now = Counters(), time.monotonic

    def call(order: int) -> int:
        began = now()
        try:
            value = work(order, endpoint=BARE)
        except Exception:
            counters.failures += 1
            raise
        counters.calls += 1
        counters.seconds += now() - began
        return value

    return call


def floor_async() -> Callable[[int], Awaitable[int]]:
    """The same, awaited."""
    counters, now = Counters(), time.monotonic

    async def call(order: int) -> int:
        began = now()
        try:
            value = await work_async(order, endpoint=BARE)
        except Exception:
            counters.failures += 1
            raise
        counters.calls += 1
        counters.seconds += now() - began
        return value

    return call


async def timeout_alone(order: int) -> int:
    """A deadline by asyncio's own means, and nothing else."""
    async with asyncio.timeout(1):
        return await work_async(order, endpoint=BARE)


class Guards:
    """Guarded functions, each a call to a service of its own under a policy of its own."""

    def __init__(self) -> None:
        self._mesh = OfflineMesh()
        self._services = 0

    def guard(self, function: Callable[..., Any], *policies: str) -> Subject:
        """``function``, guarded under the last of ``policies``."""
        service = self._service(*policies)
        return Subject(self._mesh.guard(service, method=METHOD)(function))

    def pair(self, *policies: str) -> Subject:
        """The pipeline's two halves of a call, without a guard around them and a function between them."""
        pipeline = self._mesh.callee(self._service(*policies)).pipeline(METHOD)
        begin, answered, now = pipeline.begin, pipeline.answered, pipeline.now

        def call(order: int) -> None:
            begun = begin(now(), method=METHOD)
            answered(begun, now(), True)

        return Subject(call)

    def close(self) -> None:
        """Leave the mesh."""
        self._mesh.close()

    def _service(self, *policies: str) -> str:
        self._services += 1
        service = f"orders-{self._services}"
        self._mesh.settle(service, ENDPOINTS, *policies)
        return service


def run() -> list[Row]:
    """Blocking calls, then awaited ones."""
    guards = Guards()
    try:
        return [*measure_blocking(guards), *measure_awaited(guards)]
    finally:
        guards.close()


def measure_blocking(guards: Guards) -> list[Row]:
    """Rows of ``def``."""
    bare, least, stack = (
        Subject(work, {"endpoint": BARE}),
        Subject(floor()),
        Subject(stacks.blocking(work), {"endpoint": BARE}),
    )
    built_in, all_on, off = guards.guard(work), guards.guard(work, ALL_ON), guards.guard(work, ALL_ON, ALL_OFF)
    pair = guards.pair()
    features = {name: guards.guard(work, policy) for name, policy in FEATURES.items()}
    asyncio.run(take_turns(bare, least, stack, built_in, all_on, off, pair, *features.values()))
    return [
        row("bare call", bare, least, "floor"),
        row("floor: two looks at the clock, try, two counters", least),
        row("guard, sync, as built in: pick, outliers, retry throttle, statistics", built_in, least, "floor"),
        row("… begin and answered alone", pair, least, "floor"),
        row("guard, sync: breaker + limit + retry + timeout as well", all_on, least, "floor", within=TARGET_SYNC),
        row("… beside tenacity + pybreaker + limits", all_on, stack, "the stack", share=TARGET_SHARE),
        row("… switched on and off again", off, built_in, "built in", share=OFF),
        *(row(f"… built in and {name}", subject, built_in, "built in") for name, subject in features.items()),
    ]


def measure_awaited(guards: Guards) -> list[Row]:
    """Rows of ``async def``. Every guarded call has a deadline, also under what is built in."""
    bare, least = Subject(work_async, {"endpoint": BARE}), Subject(floor_async())
    alone, stack = Subject(timeout_alone), Subject(stacks.awaited(work_async), {"endpoint": BARE})
    built_in, all_on = guards.guard(work_async), guards.guard(work_async, ALL_ON)
    off, without = guards.guard(work_async, ALL_ON, ALL_OFF), guards.guard(work_async, "timeout: off")
    asyncio.run(take_turns(bare, least, alone, stack, built_in, all_on, off, without))
    return [
        row("bare await", bare, least, "floor"),
        row("floor, awaited", least),
        row("asyncio.timeout around it, nothing else", alone, least, "floor"),
        row("guard, async, with a deadline, as built in", built_in, least, "floor"),
        row("… without a deadline (timeout: off)", without, least, "floor"),
        row("guard, async: breaker + limit + retry + timeout as well", all_on, least, "floor", within=TARGET_ASYNC),
        row(
            "… beside stamina + purgatory + aiolimiter + asyncio.timeout",
            all_on,
            stack,
            "the stack",
            share=TARGET_SHARE,
        ),
        row("… switched on and off again", off, built_in, "built in", share=OFF),
    ]


async def take_turns(*subjects: Subject) -> None:
    """Time all of them, every round beginning with another one."""
    gc.collect()
    gc.freeze()
    for number in range(WARM_UP + ROUNDS):
        first = number % len(subjects)
        for subject in (*subjects[first:], *subjects[:first]):
            await subject.time()
            # Timers that were set and cancelled are cleared away as they are between calls in a server.
            await asyncio.sleep(0)
    gc.unfreeze()
    for subject in subjects:
        del subject.seconds[:WARM_UP]


def row(
    what: str,
    subject: Subject,
    reference: Subject | None = None,
    called: str = "",
    *,
    within: float | None = None,
    share: float | None = None,
) -> Row:
    """One line. ``within``: seconds that it may take; ``share``: of its reference."""
    ratio = None if reference is None else subject.over(reference)
    target, holds = "", None
    if within is not None:
        target, holds = f"≤ {within * 1e6:.1f} µs", subject.median <= within
    elif share is not None and ratio is not None:
        target, holds = f"≤ {share:.2f} ×" if share >= 1 else f"≤ 1/{1 / share:.0f}", ratio <= share
    return Row(what, str(subject), "" if reference is None else f"{called}: {reference}", ratio, target, holds)
