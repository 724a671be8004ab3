"""One endpoint of a large service changes: what goes over the wire to each client is the change, not the service."""

from __future__ import annotations

import asyncio

from tests.bench.client import ENDPOINTS
from tests.bench.house import House, endpoint
from tests.bench.report import Row, percentile

ENDPOINT_COUNT = 1000
CLIENTS = 20
CHANGES = 50


async def run(house: House) -> list[Row]:
    """Bytes that a client's connection receives, HTTP/2 frames and all."""
    await house.fill("large", ENDPOINT_COUNT)
    server, fleet = await house.replica(), await house.fleet(1)
    opened = await fleet.open("clients", server.grpc, CLIENTS, names=[[ENDPOINTS, "default/large"]], interval=2.0)
    snapshot = opened / CLIENTS
    sizes = []
    for number in range(CHANGES):
        [before] = await fleet.each("clear", group="clients")
        await house.put(endpoint("large", number, weight=200))
        await asyncio.sleep(0.05)
        while not all(await fleet.records("clients")):
            await asyncio.sleep(0.02)
        [after] = await fleet.each("clear", group="clients")
        sizes.append((after["received"] - before["received"]) / CLIENTS)
    size = percentile(sizes, 0.5)
    return [
        Row(
            f"one of {ENDPOINT_COUNT:,} endpoints changes: bytes received per client, p50 (max)",
            f"{size:.0f} B ({max(sizes):.0f} B)",
            f"opening, whole snapshot: {snapshot:,.0f} B",
            size / snapshot,
            "≤ 400 B",
            size <= 400,
        )
    ]
