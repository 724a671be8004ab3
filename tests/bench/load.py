"""A load process: ``python -m tests.bench.load``. Takes one JSON command a line, answers one JSON object a line.

Times are seconds of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import uvloop
from trimtab.v1 import mesh_pb2

from controlplane.core.change import Absent, Change, Write
from controlplane.core.model import Instance
from controlplane.store.codec import Codec
from controlplane.store.etcd import EtcdOptions, EtcdStore
from controlplane.store.ledger import Ledger
from tests.bench.client import CONFIG, HEARTBEAT, Client, Refused, Registration
from tests.bench.commands import obey
from tests.bench.wire import message_frame

_AT_ONCE = 100
_TICK = 0.002
_RETRY = 0.2
_PATIENCE = 20.0
_ECHO = message_frame(
    mesh_pb2.ClientMessage(
        subscribe=mesh_pb2.Subscribe(subscriptions=[mesh_pb2.Subscription(kind=CONFIG, name="default/bench/echo")])
    ).SerializeToString()
)


class Load:
    """The clients of one process, in named groups."""

    def __init__(self) -> None:
        self._groups: dict[str, list[Client]] = {}
        self._beating: list[asyncio.Task[None]] = []

    async def open(
        self,
        group: str,
        address: str,
        count: int,
        first: int = 0,
        names: list[list[Any]] | None = None,
        services: int = 0,
        interval: float = 0.0,
    ) -> dict[str, Any]:
        """Open ``count`` streams; with ``services``, register one instance on each, spread over so many services.

        ``interval``: beat this often, spread evenly.
        """
        host, port = _split(address)
        follows = tuple((kind, name) for kind, name in names or [])
        clients = [
            Client(f"{group}-{i}", follows, Registration(f"svc-{i % services}", 1 + i % 65_535) if services else None)
            for i in range(first, first + count)
        ]
        gate = asyncio.Semaphore(_AT_ONCE)

        async def connect(client: Client) -> None:
            async with gate:
                await client.connect(host, port)

        await asyncio.gather(*map(connect, clients))
        self._groups.setdefault(group, []).extend(clients)
        if interval:
            self._beating.append(asyncio.create_task(self._keep_beating(clients, interval)))
        gc.collect()
        gc.freeze()
        return {"received": sum(client.received for client in clients)}

    async def acks(self, group: str, on: bool) -> dict[str, Any]:
        """Whether the clients acknowledge at once, or only when they are told to ``clear``."""
        for client in self._groups[group]:
            client.acks = on
        return {}

    async def clear(self, group: str) -> dict[str, Any]:
        """Forget what was recorded, answer what was not answered; the bytes received so far."""
        for client in self._groups[group]:
            client.acknowledge()
            client.records.clear()
        return {"received": sum(client.received for client in self._groups[group])}

    async def collect(self, group: str) -> dict[str, Any]:
        """What each client applied since ``clear``: version and time."""
        clients = self._groups[group]
        ended = [client.ended for client in clients if client.ended]
        return {
            "records": [client.records for client in clients],
            "received": sum(client.received for client in clients),
            "ended": ended[:3],
        }

    async def beat(self, group: str, rate: float, seconds: float, every: int) -> dict[str, Any]:
        """Heartbeats in an open loop. Each ``every``-th is followed by a question that the server answers in order.

        Answers seconds from the intended time to the answer, and by how much sending itself was late.
        """
        clients = self._groups[group]
        asked: list[tuple[Client, float]] = []
        late: list[float] = []
        for client in clients:
            client.records.clear()
        start, sent, total = time.monotonic() + 0.05, 0, int(rate * seconds)
        while sent < total:
            now = time.monotonic()
            due = min(total, int((now - start) * rate))
            while sent < due:
                client, intended = clients[sent % len(clients)], start + sent / rate
                if sent % every:
                    client.send_frames(HEARTBEAT)
                else:
                    client.send_frames(HEARTBEAT + _ECHO)
                    asked.append((client, intended))
                    late.append(now - intended)
                sent += 1
            await asyncio.sleep(_TICK)
        expected = Counter(client for client, _ in asked)
        patience = time.monotonic() + _PATIENCE
        while time.monotonic() < patience and any(len(c.records) < count for c, count in expected.items()):
            await asyncio.sleep(0.05)
        answers = {client: iter(client.records) for client in clients}
        latencies = [answered[1] - intended for client, intended in asked if (answered := next(answers[client], None))]
        return {"sent": sent, "asked": len(asked), "latencies": latencies, "late": late}

    async def storm(self, group: str, address: str, jitter: float) -> dict[str, Any]:
        """Every client reconnects at once, or within ``jitter`` seconds, as often as it takes."""
        host, port = _split(address)
        clients = self._groups[group]
        retries = 0

        async def move(client: Client) -> None:
            nonlocal retries
            await asyncio.sleep(random.uniform(0, jitter))
            while True:
                try:
                    client.records.clear()
                    await client.connect(host, port)
                    return
                except (Refused, OSError):
                    retries += 1
                    await asyncio.sleep(random.uniform(0, _RETRY))

        await asyncio.gather(*map(move, clients))
        await asyncio.sleep(0.5)
        return {
            "attached": [client.attached_at for client in clients],
            "received": sum(client.received for client in clients),
            "deltas": sum(len(client.records) for client in clients),
            "retries": retries,
            "ended": [client.ended for client in clients if client.ended][:3],
        }

    async def register(self, group: str, concurrency: int, seconds: float, round: int) -> dict[str, Any]:
        """Register new instances one after the other on ``concurrency`` streams; how many, and each one's seconds."""
        latencies: list[float] = []
        until = time.monotonic() + seconds

        async def one(client: Client, index: int) -> None:
            for port in _numbers():
                began = time.monotonic()
                if began >= until:
                    return
                await client.register(Registration(f"r{round}-{index}", port))
                latencies.append(time.monotonic() - began)

        await asyncio.gather(*(one(client, i) for i, client in enumerate(self._groups[group][:concurrency])))
        return {"latencies": latencies}

    async def create(self, etcd: str, concurrency: int, seconds: float, round: int) -> dict[str, Any]:
        """The reference: create the same records in etcd directly, on one lease, each in a request of its own.

        Through our own client, but without what it does to send several transactions in one request.
        """
        store = EtcdStore(EtcdOptions(endpoints=(etcd,), gather=False))
        ledger = Ledger(store, Codec("bench/create"))
        lease = await store.grant(600)
        latencies: list[float] = []
        until = time.monotonic() + seconds

        async def one(index: int) -> None:
            for port in _numbers():
                began = time.monotonic()
                if began >= until:
                    return
                instance = Instance("default", f"c{round}-{index}", f"10.0.0.1-{port}", "10.0.0.1", port)
                change = Change(expect=(Absent(instance.ref),), write=(Write(instance.ref, instance, lease),))
                assert (await ledger.commit(change)).succeeded
                latencies.append(time.monotonic() - began)

        try:
            await asyncio.gather(*map(one, range(concurrency)))
        finally:
            await store.close()
        return {"latencies": latencies}

    async def drop(self, group: str) -> dict[str, Any]:
        """Drop every connection of a group."""
        for client in self._groups[group]:
            client.abort()
        return {}

    async def _keep_beating(self, clients: list[Client], interval: float) -> None:
        start, sent = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - start) * len(clients) / interval)
            while sent < due:
                client = clients[sent % len(clients)]
                if not client.ended:
                    client.send_frames(HEARTBEAT)
                sent += 1
            await asyncio.sleep(0.01)


def _numbers() -> Iterator[int]:
    yield from range(1, 65_536)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


async def main() -> None:
    """Serve commands until stdin ends."""
    gc.set_threshold(50_000, 20, 100)
    await obey(Load())


if __name__ == "__main__":
    uvloop.run(main())
