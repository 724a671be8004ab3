"""A steady stream of changes: from each write until the last of 100 clients has applied and acknowledged it."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from tests.bench.client import ENDPOINTS
from tests.bench.house import House, arrivals, endpoint
from tests.bench.report import Row, percentile, spread

CLIENTS = 100
RATE = 50
WARM_UP = 100
CHANGES = 500
SERVICE = "orders"
_DEADLINE = 30.0


async def run(house: House) -> list[Row]:
    """Open loop: the schedule of writes waits for nobody. The acknowledgement is timed where it leaves the client."""
    await house.fill(SERVICE, 100)
    server, fleet = await house.replica(), await house.fleet()
    await fleet.open("clients", server.grpc, CLIENTS, names=[[ENDPOINTS, f"default/{SERVICE}"]], interval=2.0)
    seen: dict[int, float] = {}
    watching = asyncio.create_task(_watch(house, seen))
    written = await _write(house)
    async with asyncio.timeout(_DEADLINE):
        while len(arrivals(records := await fleet.records("clients"), written[-1][0])) < CLIENTS:
            await asyncio.sleep(0.2)
    watching.cancel()
    by_all, raw = [], []
    for revision, intended in written[WARM_UP:]:
        times = arrivals(records, revision)
        by_all.append(max(times) - intended)
        raw.append(seen[revision] - intended)
    middle, tail = percentile(by_all, 0.5), percentile(by_all, 0.99)
    return [
        Row(
            f"{RATE} changes/s, write → acknowledged by all of {CLIENTS} clients, p50 / p99 / max",
            spread(by_all),
            f"etcd put → raw etcd watch: {spread(raw)}",
            middle / percentile(raw, 0.5),
            "p50 ≤ 15 ms, p99 ≤ 60 ms",
            middle <= 0.015 and tail <= 0.060,
        )
    ]


async def _write(house: House) -> list[tuple[int, float]]:
    """Revision and intended time of each write."""
    start, tasks = time.monotonic() + 0.2, []
    for number in range(WARM_UP + CHANGES):
        intended = start + number / RATE
        await asyncio.sleep(max(0.0, intended - time.monotonic()))
        tasks.append(asyncio.create_task(_put(house, number, intended)))
    return sorted(await asyncio.gather(*tasks))


async def _put(house: House, number: int, intended: float) -> tuple[int, float]:
    return await house.put(endpoint(SERVICE, number % 100, weight=101 + number // 100)), intended


async def _watch(house: House, seen: dict[int, float]) -> None:
    async with aclosing(house.store.watch(house.codec.live_prefix, after=await house.revision())) as batches:
        async for batch in batches:
            now = time.monotonic()
            for event in batch.events:
                seen[event.revision] = now
