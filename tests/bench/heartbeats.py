"""10,000 heartbeats a second to one process, in an open loop, and what they cost etcd: nothing."""

from __future__ import annotations

from tests.bench.client import ENDPOINTS
from tests.bench.fanout import NAME, SERVICE, SETTINGS, imitation
from tests.bench.house import Fleet, House, Server
from tests.bench.report import Row, percentile, spread

STREAMS = 1000
RATE = 10_000
SECONDS = 5.0
ROUNDS = 2
EVERY = 50  # every so many heartbeats carry a question, whose answer shows when the server got there


async def run(house: House) -> list[Row]:
    """A stream is served in order: a heartbeat was heard when the question behind it is answered."""
    await house.fill(SERVICE, 10)
    server, floor, fleet = await house.replica(**SETTINGS), await house.floor(), await house.fleet()
    await floor.push(imitation(1))
    await fleet.open("mesh", server.grpc, STREAMS, names=[[ENDPOINTS, NAME]], services=50)
    await fleet.open("floor", floor.grpc, STREAMS, names=[[ENDPOINTS, NAME]])
    await floor.settle()

    await _beat(fleet, "mesh", server, 1.0)
    await _beat(fleet, "floor", floor, 1.0)
    ours: list[float] = []
    bare: list[float] = []
    late: list[float] = []
    cost = bare_cost = writes = 0.0
    before = (await server.metrics())["trimtab_heartbeats_total"]
    for _ in range(ROUNDS):
        written = await house.writes()
        latencies, lateness, cpu = await _beat(fleet, "mesh", server, SECONDS)
        writes += await house.writes() - written
        ours, late, cost = ours + latencies, late + lateness, cost + cpu
        latencies, _, cpu = await _beat(fleet, "floor", floor, SECONDS)
        bare, bare_cost = bare + latencies, bare_cost + cpu
    heard = (await server.metrics())["trimtab_heartbeats_total"] - before
    sent = RATE * SECONDS * ROUNDS
    p99 = percentile(ours, 0.99)
    return [
        Row(
            f"{RATE:,} heartbeats/s on {STREAMS:,} streams, intended time → heard and answered, p50 / p99 / max",
            spread(ours) + f" ({heard / sent:.1%} heard)",
            f"floor: {spread(bare)}; the load itself was late by p99 {percentile(late, 0.99) * 1e3:.1f} ms",
            p99 / percentile(bare, 0.99),
            "p99 ≤ 100 ms",
            p99 <= 0.100 and heard >= sent,
        ),
        Row(
            "… server CPU per heartbeat",
            f"{cost / sent * 1e6:.0f} µs",
            f"floor: {bare_cost / sent * 1e6:.0f} µs",
            cost / bare_cost,
        ),
        Row("… etcd writes per heartbeat", f"{writes / sent:.6f}", "", None, "0", writes == 0),
    ]


async def _beat(fleet: Fleet, group: str, server: Server, seconds: float) -> tuple[list[float], list[float], float]:
    """Latencies, lateness of the load, and the server's CPU seconds."""
    cpu = server.cpu()
    answers = await fleet.each("beat", group=group, rate=RATE / 2, seconds=seconds, every=EVERY)
    missing = sum(answer["asked"] - len(answer["latencies"]) for answer in answers)
    if missing:
        raise RuntimeError(f"{missing} questions were never answered")
    return (
        [latency for answer in answers for latency in answer["latencies"]],
        [late for answer in answers for late in answer["late"]],
        server.cpu() - cpu,
    )
