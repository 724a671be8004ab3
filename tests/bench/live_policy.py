"""Policies change under running clients that make calls: how soon each is in force, and what the calls feel of it.

The schedule of changes waits for nobody but the writer: two writes of one policy at the same time would be a conflict. Times
count from when a write was due. Every change has another value in every section, so that everything that a policy is made
into is made anew. The clients are packed into a few processes; what a call feels of a swap is told by one more that has a
process of its own, as clients do.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.bench.house import Fleet, House, Server, arrivals, enact
from tests.bench.report import Row, ms, percentile, spread

CLIENTS, PROCESSES = 100, 10
BUSY_CLIENTS, BUSY_PROCESSES = 20, 4
ENDPOINTS = 20
# Seconds between the calls of one client. All of them share this machine with what is measured: see the row of their share.
INTERVAL = 0.5
LONE_INTERVAL, LANES = 0.02, 4
SERVICE = "orders"
CHANGES, RATE = 30, 2.0
MANY, MINUTE = 1000, 60.0
WARM_UP, WARM_UP_RATE = 20, 5.0
TARGET = 0.25
GROWTH = 1.10
_PATIENCE = 30.0
# One of these beside the sections that every change has.
_MORE = ("concurrency: {}", "balance: {{algorithm: p2c, decay: {}s}}", "outlier: {{consecutive: 5, interval: {}s}}")


def policy(number: int) -> str:
    """One of many defaults, no two alike in any section."""
    return f"""\
timeout: {{total: {30_000 + number}ms, attempt: 20s}}
limit: {{rate: {500_000 + number}/s, burst: 1000}}
breaker: {{scope: endpoint, open_when: failures >= 50% of {20 + number} in 10s}}
retry: {{attempts: {2 + number % 3}, on: [connect-failure, 503], backoff: {50 + number}ms..3s, budget: 20%}}
{_MORE[number % len(_MORE)].format(100 + number)}
"""


@dataclass
class Clients:
    """The ``count`` packed ones, and the one with a process of its own.

    ``idle``: CPU seconds a second without changes, of the clients and of the replica.
    """

    packed: Fleet
    lone: Fleet
    server: Server
    count: int
    idle: tuple[float, float] = (0.0, 0.0)

    async def each(self, do: str) -> list[dict[str, Any]]:
        """The same command to every process; their answers, that of the lone one last."""
        return [*await self.packed.each(do), *await self.lone.each(do)]

    def cpu(self) -> tuple[float, float]:
        """CPU seconds used so far by all clients, and by their replica."""
        return self.packed.cpu() + self.lone.cpu(), self.server.cpu()

    @property
    def calls(self) -> float:
        """Calls a second, of all."""
        return self.count / INTERVAL + LANES / LONE_INTERVAL


@dataclass
class Series:
    """Changes at one rate.

    Seconds from each intended write until it was in force in each client, and until it was answered; ``seconds``: that all
    writes took. ``near``, ``far``: the lone client's calls, near a swap and far from any. ``calls``, ``failures``: of all
    clients. ``cost``, ``server_cost``: CPU seconds for each change in each client, without what the calls take.
    """

    in_force: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    seconds: float = 0.0
    near: list[float] = field(default_factory=list)
    far: list[float] = field(default_factory=list)
    calls: int = 0
    failures: list[str] = field(default_factory=list)
    outdated: int = 0
    cost: float = 0.0
    server_cost: float = 0.0

    def take(self, answers: list[dict[str, Any]], written: list[tuple[int, float]]) -> None:
        """What the clients tell."""
        swaps = [client for answer in answers for client in answer["swaps"]]
        for revision, intended in written:
            self.in_force += [at - intended for at in arrivals(swaps, revision)]
        for answer in answers:
            self.calls += len(answer["near"]) + len(answer["far"])
            self.failures += answer["failures"]
            self.outdated += answer["outdated"]
        self.near, self.far = answers[-1]["near"], answers[-1]["far"]

    @property
    def flaws(self) -> str:
        """What went wrong with the calls."""
        first = f" ({self.failures[0]})" if self.failures else ""
        return f"{len(self.failures)} failed{first}, {self.outdated} by an older policy"


async def run(house: House) -> list[Row]:
    """A change now and then; then 1,000 in a minute, for fewer clients, as this machine is the machine of all of them."""
    return [*await now_and_then(CLIENTS, PROCESSES), *await all_the_time(BUSY_CLIENTS, BUSY_PROCESSES)]


async def now_and_then(count: int, processes: int) -> list[Row]:
    """How soon a change is in force, and what calls feel of it."""
    async with House() as house, town(house, count, processes) as (clients, http):
        clients.idle = await idle_cpu(clients)
        return [*report(count, await change(clients, http, range(WARM_UP, WARM_UP + CHANGES), RATE)), share(clients)]


async def all_the_time(count: int, processes: int) -> list[Row]:
    """What a minute of changes leaves behind. In a house of its own, where nothing was freed before."""
    async with House() as house, town(house, count, processes) as (clients, http):
        clients.idle = await idle_cpu(clients)
        before = await census(clients)
        many = await change(clients, http, range(WARM_UP, WARM_UP + MANY), MANY / MINUTE)
        return report_many(count, processes, many, before, await census(clients))


@asynccontextmanager
async def town(house: House, count: int, processes: int) -> AsyncIterator[tuple[Clients, httpx.AsyncClient]]:
    """Clients that call under a policy, after a few changes of it; and a way to change it."""
    await house.fill(SERVICE, ENDPOINTS)
    server = await house.replica()
    packed, lone = [await house.fleet(number, "tests.bench.callers") for number in (processes, 1)]
    clients, share = Clients(packed, lone, server, count), count // processes
    opened = {"do": "open", "address": server.grpc, "count": share, "service": SERVICE, "interval": INTERVAL}
    await packed.spread([opened | {"first": share * number} for number in range(processes)])
    await lone.spread([opened | {"first": count, "count": 1, "interval": LONE_INTERVAL, "lanes": LANES}])
    async with httpx.AsyncClient(base_url=f"http://{server.http}", timeout=_PATIENCE) as http:
        await enact(http, SERVICE, policy(0))
        await change(clients, http, range(1, WARM_UP), WARM_UP_RATE)
        yield clients, http


async def idle_cpu(clients: Clients) -> tuple[float, float]:
    """CPU seconds a second of clients that only make calls, and of their replica."""
    cpu, began = clients.cpu(), time.monotonic()
    await asyncio.sleep(3.0)
    seconds = time.monotonic() - began
    all_, server = clients.cpu()
    return (all_ - cpu[0]) / seconds, (server - cpu[1]) / seconds


async def change(clients: Clients, http: httpx.AsyncClient, numbers: range, rate: float) -> Series:
    """Put policies in force, so many a second, and see what the clients made of them."""
    await clients.each("collect")
    series = Series()
    written: list[tuple[int, float]] = []
    cpu, began = clients.cpu(), time.monotonic()
    for at, number in enumerate(numbers):
        intended = began + 0.2 + at / rate
        await asyncio.sleep(max(0.0, intended - time.monotonic()))
        written.append((await enact(http, SERVICE, policy(number)), intended))
        series.answered.append(time.monotonic() - intended)
    series.seconds = time.monotonic() - began
    async with asyncio.timeout(_PATIENCE):
        while min(answer["revision"] for answer in await clients.each("reached")) < written[-1][0]:
            await asyncio.sleep(0.2)
    await asyncio.sleep(1.0)
    seconds, swaps = time.monotonic() - began, (clients.count + 1) * len(numbers)
    all_, server = clients.cpu()
    series.cost = (all_ - cpu[0] - clients.idle[0] * seconds) / swaps
    series.server_cost = (server - cpu[1] - clients.idle[1] * seconds) / swaps
    series.take(await clients.each("collect"), written)
    return series


async def census(clients: Clients) -> dict[str, Any]:
    """Resident bytes of a client process and of the replica, and the objects of all clients."""
    answers = await clients.each("census")
    kinds = answers[0]["objects"]
    return {
        "client": sum(answer["rss"] for answer in answers) / len(answers),
        "server": clients.server.rss(),
        "objects": {kind: sum(answer["objects"][kind] for answer in answers) for kind in kinds},
    }


def report(count: int, few: Series) -> list[Row]:
    """What one change takes, and what calls feel of it."""
    tail, usual = percentile(few.near, 0.99), percentile(few.far, 0.99)
    return [
        in_force(f"policy written → in force in each of {count} calling clients, p50 / p99 / max", few, TARGET),
        Row(
            "… CPU for each change in each client",
            f"{few.cost * 1e3:.2f} ms",
            f"the replica's: {few.server_cost * 1e3:.2f} ms",
            few.cost / few.server_cost,
        ),
        Row(
            f"… {len(few.near):,} calls of 5 ms around swaps, in a process of their own, p50 / p99",
            f"{ms(percentile(few.near, 0.5))} / {ms(tail)}",
            f"{len(few.far):,} between: {ms(percentile(few.far, 0.5))} / {ms(usual)}",
            tail / usual,
        ),
        lost(few),
    ]


def in_force(what: str, series: Series, target: float | None = None) -> Row:
    """How soon changes were in force, or what came after them, beside how soon the writes themselves were answered."""
    return Row(
        what,
        spread(series.in_force),
        f"the write's own answer: {spread(series.answered)}",
        percentile(series.in_force, 0.5) / percentile(series.answered, 0.5),
        "" if target is None else f"p99 ≤ {target * 1e3:.0f} ms",
        None if target is None else percentile(series.in_force, 0.99) <= target,
    )


def lost(series: Series) -> Row:
    """What became of all calls meanwhile."""
    return Row(
        f"… {series.calls:,} calls meanwhile",
        series.flaws,
        target="none lost",
        holds=not series.failures and not series.outdated,
    )


def share(clients: Clients) -> Row:
    """How much of the machine the calls take by themselves: what is left is for the changes."""
    cores = os.cpu_count() or 1
    return Row(
        f"… calls alone, {clients.calls:.0f} a second by {clients.count + 1} clients: share of all {cores} cores",
        f"{clients.idle[0] / cores:.0%}",
        f"the replica, meanwhile: {clients.idle[1] / cores:.1%}",
    )


def report_many(count: int, processes: int, many: Series, before: dict[str, Any], after: dict[str, Any]) -> list[Row]:
    """What a minute of changes leaves behind."""
    objects = [f"{kind} {before['objects'][kind]} → {after['objects'][kind]}" for kind in before["objects"]]
    kept = all(after["objects"][kind] <= count for kind, count in before["objects"].items())
    return [
        in_force(
            f"{MANY:,} changes in {many.seconds:.0f} s, {count} clients: written → in force, p50 / p99 / max", many
        ),
        lost(many),
        Row(f"… objects of all {count + 1} clients", ", ".join(objects), target="no more than before", holds=kept),
        *(
            Row(
                f"… resident, {whose}",
                f"{after[key] / 2**20:.1f} MiB",
                f"before: {before[key] / 2**20:.1f} MiB",
                after[key] / before[key],
                f"≤ {GROWTH - 1:.0%} more",
                after[key] <= before[key] * GROWTH,
            )
            for key, whose in (("client", f"a process of {count // processes} clients"), ("server", "the replica"))
        ),
    ]
