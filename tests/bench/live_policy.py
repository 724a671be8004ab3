"""Policies change under 100 running clients that make calls: how soon each is in force, and what the calls feel of it.

Open loop: the schedule of changes waits for nobody. Every change has another value in every section, so that everything
that a policy is made into is made anew.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.bench.house import Fleet, House, Server, arrivals, enact
from tests.bench.report import Row, ms, percentile, spread

CLIENTS = 100
PROCESSES = 4
ENDPOINTS = 20
INTERVAL = 0.05  # seconds between the calls of one client
SERVICE = "orders"
CHANGES, RATE = 60, 4.0
MANY, MINUTE = 1000, 60.0
WARM_UP = 40
TARGET = 0.25
GROWTH = 1.05
_PATIENCE = 30.0
_ALGORITHMS = ("p2c", "least_request", "round_robin")


def policy(number: int) -> str:
    """One of many defaults, no two alike in any section."""
    return f"""\
timeout: {{total: {3000 + number}ms, attempt: 1s}}
limit: {{rate: {500_000 + number}/s, burst: 1000}}
breaker: {{scope: endpoint, open_when: failures >= 50% of {20 + number} in 10s}}
retry: {{attempts: {2 + number % 3}, on: [connect-failure, 503], backoff: {50 + number}ms..3s, budget: 20%}}
concurrency: {100 + number}
balance: {{algorithm: {_ALGORITHMS[number % 3]}, decay: {10_000 + number}ms}}
outlier: {{consecutive: 5, interval: {10_000 + number}ms}}
"""


@dataclass
class Series:
    """Changes at one rate. Seconds: from each intended write until it was in force in each client, and until it was answered."""

    in_force: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    near: list[float] = field(default_factory=list)
    far: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    outdated: int = 0
    missed: int = 0

    @property
    def calls(self) -> int:
        """How many were made."""
        return len(self.near) + len(self.far)

    @property
    def flaws(self) -> str:
        """What went wrong."""
        first = f" ({self.failures[0]})" if self.failures else ""
        return f"{len(self.failures)} failed{first}, {self.outdated} by an older policy"


async def run(house: House) -> list[Row]:
    """A change now and then, then 1,000 in a minute."""
    await house.fill(SERVICE, ENDPOINTS)
    server, fleet = await house.replica(), await house.fleet(PROCESSES, "tests.bench.callers")
    share = CLIENTS // PROCESSES
    opened = {"do": "open", "address": server.grpc, "count": share, "service": SERVICE, "interval": INTERVAL}
    await fleet.spread([opened | {"first": share * number} for number in range(PROCESSES)])
    async with httpx.AsyncClient(base_url=f"http://{server.http}", timeout=_PATIENCE) as http:
        await change(fleet, http, 0, WARM_UP, RATE * 4)
        few = await change(fleet, http, WARM_UP, CHANGES, RATE)
        before = await census(fleet, server)
        many = await change(fleet, http, WARM_UP + CHANGES, MANY, MANY / MINUTE)
        after = await census(fleet, server)
    return [*report(few), *report_many(many, before, after)]


async def change(fleet: Fleet, http: httpx.AsyncClient, first: int, count: int, rate: float) -> Series:
    """Put ``count`` policies in force, so many a second, and see what the clients made of them."""
    await fleet.each("collect")
    series = Series()
    written: list[tuple[int, float]] = []
    start = time.monotonic() + 0.2
    for number in range(count):
        intended = start + number / rate
        await asyncio.sleep(max(0.0, intended - time.monotonic()))
        written.append((await enact(http, SERVICE, policy(first + number)), intended))
        series.answered.append(time.monotonic() - intended)
    await asyncio.sleep(1.0)
    answers = await fleet.each("collect")
    swaps = [client for answer in answers for client in answer["swaps"]]
    for revision, intended in written:
        times = arrivals(swaps, revision)
        series.missed += CLIENTS - len(times)
        series.in_force += [at - intended for at in times]
    for answer in answers:
        series.near += answer["near"]
        series.far += answer["far"]
        series.failures += answer["failures"]
        series.outdated += answer["outdated"]
    return series


async def census(fleet: Fleet, server: Server) -> dict[str, Any]:
    """Resident bytes of a client process and of the replica, and the objects of all clients."""
    answers = await fleet.each("census")
    kinds = answers[0]["objects"]
    return {
        "client": sum(answer["rss"] for answer in answers) / len(answers),
        "server": server.rss(),
        "objects": {kind: sum(answer["objects"][kind] for answer in answers) for kind in kinds},
    }


def report(few: Series) -> list[Row]:
    """What one change takes, and what calls feel of it."""
    tail, usual = percentile(few.near, 0.99), percentile(few.far, 0.99)
    return [
        Row(
            f"policy written → in force in each of {CLIENTS} calling clients, p50 / p99 / max",
            spread(few.in_force) + (f" ({few.missed} missed)" if few.missed else ""),
            f"the write's own answer: {spread(few.answered)}",
            percentile(few.in_force, 0.5) / percentile(few.answered, 0.5),
            f"p99 ≤ {TARGET * 1e3:.0f} ms",
            percentile(few.in_force, 0.99) <= TARGET and not few.missed,
        ),
        Row(
            f"… {len(few.near):,} calls of 5 ms around it, p50 / p99",
            f"{ms(percentile(few.near, 0.5))} / {ms(tail)}; {few.flaws}",
            f"{len(few.far):,} calls between: {ms(percentile(few.far, 0.5))} / {ms(usual)}",
            tail / usual,
            "none lost",
            not few.failures and not few.outdated,
        ),
    ]


def report_many(many: Series, before: dict[str, Any], after: dict[str, Any]) -> list[Row]:
    """What a minute of changes leaves behind."""
    objects = [f"{kind} {before['objects'][kind]} → {after['objects'][kind]}" for kind in before["objects"]]
    kept = all(after["objects"][kind] <= count for kind, count in before["objects"].items())
    return [
        Row(
            f"{MANY:,} changes in a minute: written → in force, p50 / p99 / max",
            spread(many.in_force) + (f" ({many.missed} missed)" if many.missed else ""),
            f"the write's own answer: {spread(many.answered)}",
            percentile(many.in_force, 0.5) / percentile(many.answered, 0.5),
            f"p99 ≤ {TARGET * 1e3:.0f} ms",
            percentile(many.in_force, 0.99) <= TARGET and not many.missed,
        ),
        Row(
            f"… {many.calls:,} calls of 5 ms meanwhile, p99",
            f"{ms(percentile([*many.near, *many.far], 0.99))}; {many.flaws}",
            target="none lost",
            holds=not many.failures and not many.outdated,
        ),
        Row(f"… objects of all {CLIENTS} clients", ", ".join(objects), target="no more than before", holds=kept),
        *(
            Row(
                f"… resident, {whose}",
                f"{after[key] / 2**20:.1f} MiB",
                f"before: {before[key] / 2**20:.1f} MiB",
                after[key] / before[key],
                f"≤ {GROWTH - 1:.0%} more",
                after[key] <= before[key] * GROWTH,
            )
            for key, whose in (("client", f"a process of {CLIENTS // PROCESSES} clients"), ("server", "the replica"))
        ),
    ]
