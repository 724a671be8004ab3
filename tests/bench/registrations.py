"""Registrations on streams, end to end, beside what etcd itself creates at the same concurrency."""

from __future__ import annotations

from typing import Any

from tests.bench.house import House
from tests.bench.report import Row, percentile, spread

CONCURRENCY = (16, 64, 256)
ROUNDS = 3
SECONDS = 2.0


async def run(house: House) -> list[Row]:
    """Closed loop: each stream registers a new instance as soon as its last one is committed."""
    server, fleet = await house.replica(), await house.fleet(1)
    await fleet.open("clients", server.grpc, max(CONCURRENCY), services=max(CONCURRENCY), interval=2.0)
    rows = []
    for concurrency in CONCURRENCY:
        ours: list[list[float]] = []
        theirs: list[list[float]] = []
        cpu = 0.0
        for number in range(1 + ROUNDS):
            arguments: dict[str, Any] = {
                "concurrency": concurrency,
                "seconds": SECONDS,
                "round": concurrency * 100 + number,
            }
            before = server.cpu()
            [registered] = await fleet.each("register", group="clients", **arguments)
            cpu += (server.cpu() - before) if number else 0.0
            [created] = await fleet.each("create", etcd=house.etcd.endpoint, **arguments)
            if number:  # the first round warms up
                ours.append(registered["latencies"])
                theirs.append(created["latencies"])
        done = [latency for latencies in ours for latency in latencies]
        rate = percentile([len(latencies) for latencies in ours], 0.5) / SECONDS
        floor = percentile([len(latencies) for latencies in theirs], 0.5) / SECONDS
        rows.append(
            Row(
                f"registrations/s at concurrency {concurrency} (p50 / p99 / max, server CPU each)",
                f"{rate:,.0f}/s ({spread(done)}, {cpu / len(done) * 1e6:.0f} µs)",
                f"etcd create-txn, a request each: {floor:,.0f}/s",
                rate / floor,
                "≥ 0.5 × etcd's",
                rate >= floor / 2,
            )
        )
    return rows
