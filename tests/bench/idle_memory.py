"""What an idle stream occupies in the server: connection, session, instance, subscription, everything."""

from __future__ import annotations

import asyncio

from tests.bench.client import ENDPOINTS
from tests.bench.fanout import NAME, SERVICE, SETTINGS, imitation
from tests.bench.house import House
from tests.bench.report import Row

STREAMS = 5000
WARM_UP = 100


async def run(house: House) -> list[Row]:
    """Resident memory beside that of the bare mailbox server with as many streams."""
    await house.fill(SERVICE, 10)
    server, floor, fleet = await house.replica(**SETTINGS), await house.floor(), await house.fleet()
    await floor.push(imitation(1))
    names = [[ENDPOINTS, NAME]]
    await fleet.open("warm mesh", server.grpc, WARM_UP, names=names, services=50, interval=20.0)
    await fleet.open("warm floor", floor.grpc, WARM_UP, names=names)
    before, bare_before = server.rss(), floor.rss()
    await fleet.open("mesh", server.grpc, STREAMS, names=names, services=50, interval=20.0)
    await fleet.open("floor", floor.grpc, STREAMS, names=names)
    await asyncio.sleep(2.0)
    per_stream = (server.rss() - before) / STREAMS / 1024
    bare = (floor.rss() - bare_before) / STREAMS / 1024
    return [
        Row(
            f"resident memory per idle stream at {STREAMS:,}, with session, instance and subscription",
            f"{per_stream:.1f} KB",
            f"floor, stream alone: {bare:.1f} KB",
            per_stream / bare,
            "≤ 64 KB",
            per_stream <= 64,
        )
    ]
