"""An instance's process is killed, or stopped while its connection stands: how long other clients still see it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from contextlib import suppress

from trimtab.v1 import types_pb2

from tests.bench.client import ENDPOINTS, Client, Delta
from tests.bench.house import House, Server
from tests.bench.report import Row, percentile

KILLS = 30
STOPS = 6
# Instances that live on: 30 of 30 dying within seconds would be a mass failure, from which the guard protects.
BYSTANDERS = 100
SERVICE = "svc-0"
WINDOW = 6.0  # seconds: the default of heartbeat_window
_DEADLINE = 30.0


class Watcher(Client):
    """A client that notes when it lost which endpoint."""

    def __init__(self) -> None:
        super().__init__("watcher", ((ENDPOINTS, f"default/{SERVICE}"),))
        self.lost: dict[str, float] = {}

    def _apply(self, delta: Delta) -> None:
        now = time.monotonic()
        for resource in delta.message.resources:
            gone = [*resource.endpoints.removed]
            gone += [e.id for e in resource.endpoints.changed if e.health != types_pb2.HEALTH_HEALTHY]
            for id in gone:
                self.lost.setdefault(id, now)
        super()._apply(delta)


async def run(house: House) -> list[Row]:
    """Real processes, killed one by one at random moments."""
    server, fleet = await house.replica(), await house.fleet(1)
    await fleet.open("bystanders", server.grpc, BYSTANDERS, services=1, interval=2.0)
    watcher = Watcher()
    host, _, port = server.grpc.rpartition(":")
    await watcher.connect(host, int(port))
    beating = asyncio.create_task(watcher.beat(2.0))
    victims: list[asyncio.subprocess.Process] = []
    try:
        for start in range(0, KILLS + STOPS, 6):
            numbers = range(start, min(start + 6, KILLS + STOPS))
            victims += await asyncio.gather(*(_victim(server, 10_000 + number) for number in numbers))
        ids = [f"10.0.0.1-{10_000 + number}" for number in range(len(victims))]
        killed = await _end(watcher, victims[:KILLS], ids[:KILLS], signal.SIGKILL)
        stopped = await _end(watcher, victims[KILLS:], ids[KILLS:], signal.SIGSTOP)
    finally:
        beating.cancel()
        watcher.abort()
        for victim in victims:
            with suppress(ProcessLookupError):
                victim.kill()
            await victim.wait()
    return [
        Row(
            f"kill −9 of {KILLS} processes: death → gone from another client's view, p50 / p99 / max",
            _seconds(killed),
            "grace for a reconnect: 0.40 s",
            percentile(killed, 0.5) / 0.4,
            "p99 ≤ 1 s",
            percentile(killed, 0.99) <= 1,
        ),
        Row(
            f"SIGSTOP of {STOPS} processes: stop → gone, p50 / p99 / max",
            _seconds(stopped),
            f"heartbeat window: {WINDOW:.0f} s",
            max(stopped) / WINDOW,
            f"≤ {WINDOW + 1:.0f} s",
            max(stopped) <= WINDOW + 1,
        ),
    ]


async def _end(
    watcher: Watcher, victims: list[asyncio.subprocess.Process], ids: list[str], how: signal.Signals
) -> list[float]:
    """Seconds from each signal to the loss."""
    at = {}
    for victim, id in zip(victims, ids, strict=True):
        await asyncio.sleep(random.uniform(0.2, 0.6))
        at[id] = time.monotonic()
        os.kill(victim.pid, how)
    async with asyncio.timeout(_DEADLINE):
        while not watcher.lost.keys() >= at.keys():
            await asyncio.sleep(0.05)
    return [watcher.lost[id] - at[id] for id in ids]


async def _victim(server: Server, number: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.registrant",
        server.grpc,
        SERVICE,
        str(number),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(_DEADLINE):
        line = (await process.stdout.readline()).decode()
    if not line.startswith("registered"):
        raise RuntimeError("a victim did not register")
    return process


def _seconds(samples: list[float]) -> str:
    return f"{percentile(samples, 0.5):.2f} / {percentile(samples, 0.99):.2f} / {max(samples):.2f} s"
