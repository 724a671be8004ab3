"""A replica is killed under 5,000 clients: all resume on another one, without a snapshot and without registering."""

from __future__ import annotations

import time

from tests.bench.client import ENDPOINTS
from tests.bench.fanout import SETTINGS, imitation
from tests.bench.house import House
from tests.bench.report import Row, percentile

CLIENTS = 5000
JITTER = 1.0
SERVICE = "orders"


async def run(house: House) -> list[Row]:
    """Clients hold the current version of a service of 100 endpoints, and a session with one instance each."""
    await house.fill(SERVICE, 100)
    first, second = await house.replica(**SETTINGS), await house.replica(**SETTINGS)
    floor, fleet = await house.floor(), await house.fleet()
    await floor.push(imitation(1))
    names = [[ENDPOINTS, f"default/{SERVICE}"]]
    opened = await fleet.open("mesh", first.grpc, CLIENTS, names=names, services=50, interval=20.0)
    await fleet.open("floor", floor.grpc, CLIENTS, names=names)

    before, cpu = await house.writes(), second.cpu()
    killed = time.monotonic()
    await first.stop()
    answers = await fleet.each("storm", group="mesh", address=second.grpc, jitter=JITTER)
    cpu = second.cpu() - cpu
    writes = await house.writes() - before
    attached = [at - killed for answer in answers for at in answer["attached"]]
    received = sum(answer["received"] for answer in answers)
    deltas = sum(answer["deltas"] for answer in answers)
    retries = sum(answer["retries"] for answer in answers)
    sessions = (await second.metrics())["trimtab_sessions"]

    await fleet.each("drop", group="floor")
    bare_cpu, began = floor.cpu(), time.monotonic()
    await fleet.each("storm", group="floor", address=floor.grpc, jitter=JITTER)
    bare, bare_cpu = time.monotonic() - began - 0.5, floor.cpu() - bare_cpu
    last = max(attached)
    return [
        Row(
            f"replica killed under {CLIENTS:,} clients with sessions: kill → resumed elsewhere, p50 / p99 / last",
            f"{percentile(attached, 0.5):.2f} / {percentile(attached, 0.99):.2f} / {last:.2f} s ({retries} retries)",
            f"floor, streams alone: {bare:.2f} s (each within {JITTER:.0f} s of jitter)",
            last / bare,
            "all in ≤ 6 s",
            last <= 6 and sessions >= CLIENTS,
        ),
        Row(
            "… server CPU per client",
            f"{cpu / CLIENTS * 1e6:.0f} µs",
            f"floor: {bare_cpu / CLIENTS * 1e6:.0f} µs",
            cpu / bare_cpu,
        ),
        Row(
            "… bytes received per client, deltas sent",
            f"{received / CLIENTS:.0f} B, {deltas}",
            f"opening with snapshot: {opened / CLIENTS:,.0f} B",
            received / opened,
            "no snapshot",
            deltas == 0,
        ),
        Row(
            "… etcd writes per client",
            f"{writes / CLIENTS:.3f}",
            "1 for its session, whatever it registered",
            None,
            "0 per instance",
            writes <= CLIENTS * 1.01,
        ),
    ]
