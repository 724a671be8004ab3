"""A replica starts on a store that already holds 10,000 instances: from its process's start until it is ready."""

from __future__ import annotations

from tests.bench.house import House
from tests.bench.report import Row, percentile

INSTANCES = 10_000
SERVICES = 100
STARTS = 5


async def run(house: House) -> list[Row]:
    """Beside the start on an empty store, which is Python's and the imports' share."""
    empty = [await _start(house) for _ in range(STARTS)]
    for number in range(SERVICES):
        await house.fill(f"svc-{number}", INSTANCES // SERVICES)
    full = [await _start(house) for _ in range(STARTS)]
    worst, usual = max(full), percentile(empty, 0.5)
    return [
        Row(
            f"process start → ready with {INSTANCES:,} instances in etcd, p50 / max of {STARTS}",
            f"{percentile(full, 0.5):.2f} / {worst:.2f} s",
            f"empty store: {usual:.2f} s",
            percentile(full, 0.5) / usual,
            "≤ 3 s",
            worst <= 3,
        )
    ]


async def _start(house: House) -> float:
    server = await house.replica()
    await server.stop()
    return server.ready_after
