"""One change reaches thousands of subscribed streams: how soon, and at what cost above a bare mailbox server."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field

from trimtab.v1 import mesh_pb2, types_pb2

from tests.bench.client import ENDPOINTS
from tests.bench.house import Fleet, Floor, House, Server, arrivals, endpoint
from tests.bench.report import Row, percentile, spread

SERVICE = "orders"
NAME = f"default/{SERVICE}"
ROUNDS = 10
WARM_UP = 3
# Clients that say nothing but Ack must not be taken for dead, and beats must not blur the CPU time of a push.
SETTINGS = {"heartbeat_interval": 20, "heartbeat_window": 60}


@dataclass
class Series:
    """One server's rounds: seconds from the intended write to each client, and the server's CPU seconds."""

    latencies: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def cost(self) -> float:
        """CPU microseconds for each delivered message."""
        return self.cpu / len(self.latencies) * 1e6


async def run(house: House) -> list[Row]:
    """1,000 and 5,000 streams."""
    rows = []
    for streams, target, pace in ((1000, 0.060, 0.4), (5000, 0.250, 1.0)):
        rows += await measure(streams, target, pace)
    return rows


async def measure(streams: int, target: float, pace: float) -> list[Row]:
    """In a house of its own, so that one size leaves nothing behind for the next."""
    async with House() as house:
        await house.fill(SERVICE, 10)
        server, floor, fleet = await house.replica(**SETTINGS), await house.floor(), await house.fleet()
        await floor.push(imitation(1))
        names = [[ENDPOINTS, NAME]]
        await fleet.open("mesh", server.grpc, streams, names=names)
        await fleet.open("floor", floor.grpc, streams, names=names)
        await floor.settle()
        idle = await idle_cpu(server, floor)

        series: dict[tuple[str, bool], Series] = {}
        weights = itertools.count(1)
        for number in range(WARM_UP + ROUNDS):
            for acks in (True, False):
                for group in ("mesh", "floor"):
                    await fleet.each("acks", group=group, on=acks)
                    into = series.setdefault((group, acks), Series()) if number >= WARM_UP else Series()
                    if group == "mesh":
                        await round_of_mesh(house, fleet, server, next(weights), pace, idle[0], into)
                    else:
                        await round_of_floor(fleet, floor, number, pace, idle[1], into)
        return report(streams, target, series)


async def idle_cpu(*servers: Server) -> list[float]:
    """CPU seconds a second of servers that have nothing to do (pings): not the push's cost."""
    await asyncio.sleep(1.0)
    before = [server.cpu() for server in servers]
    await asyncio.sleep(3.0)
    return [(server.cpu() - cpu) / 3.0 for server, cpu in zip(servers, before, strict=True)]


async def round_of_mesh(
    house: House, fleet: Fleet, server: Server, weight: int, pace: float, idle: float, into: Series
) -> None:
    """Change one endpoint in etcd."""
    await fleet.each("clear", group="mesh")
    await asyncio.sleep(pace / 2)
    cpu, intended = server.cpu(), time.monotonic()
    revision = await house.put(endpoint(SERVICE, 0, weight=weight))
    await asyncio.sleep(pace)
    into.cpu += server.cpu() - cpu - idle * (time.monotonic() - intended)
    take(into, arrivals(await fleet.records("mesh"), revision), intended)


async def round_of_floor(fleet: Fleet, floor: Floor, number: int, pace: float, idle: float, into: Series) -> None:
    """Push as many bytes from the bare server."""
    message = imitation(2 + number)
    await fleet.each("clear", group="floor")
    await asyncio.sleep(pace / 2)
    cpu, intended = floor.cpu(), time.monotonic()
    await floor.push(message)
    await asyncio.sleep(pace)
    into.cpu += floor.cpu() - cpu - idle * (time.monotonic() - intended)
    take(into, arrivals(await fleet.records("floor"), 0), intended)


def take(into: Series, times: list[float], intended: float) -> None:
    """Add one round's samples."""
    latencies = [at - intended for at in times]
    into.latencies += latencies
    into.last.append(max(latencies))


def imitation(number: int) -> bytes:
    """What the control plane sends when one endpoint of a service changes, byte for byte as long."""
    instance = endpoint(SERVICE, 0, weight=10_000)
    changed = types_pb2.Endpoint(
        id=instance.id,
        address=instance.address,
        port=instance.port,
        weight=instance.weight,
        health=types_pb2.HEALTH_HEALTHY,
        zone=instance.zone,
        metadata=instance.metadata,
    )
    endpoints = types_pb2.Endpoints(base=100 + number, changed=[changed], total=10)
    resource = types_pb2.Resource(
        kind=types_pb2.KIND_ENDPOINTS, name=NAME, version=100 + number, digest=2**63 + number, endpoints=endpoints
    )
    delta = mesh_pb2.Delta(nonce=1 + number, version=100 + number, resources=[resource])
    return mesh_pb2.ServerMessage(delta=delta).SerializeToString()


def report(streams: int, target: float, series: dict[tuple[str, bool], Series]) -> list[Row]:
    """Latency of the whole path, and cost with and without the acknowledgements that our contract demands."""
    mesh, floor = series["mesh", True], series["floor", True]
    p99 = percentile(mesh.latencies, 0.99)
    delivered = len(mesh.latencies) / ROUNDS
    rows = [
        Row(
            f"fan-out to {streams:,} streams: etcd write → applied, p50 / p99 / max",
            spread(mesh.latencies) + ("" if delivered == streams else f" ({delivered:.0f} of {streams} reached)"),
            f"floor, no store: {spread(floor.latencies)}",
            p99 / percentile(floor.latencies, 0.99),
            f"p99 ≤ {target * 1e3:.0f} ms",
            p99 <= target and delivered == streams,
        )
    ]
    for acks in (False, True):
        ours, bare = series["mesh", acks], series["floor", acks]
        ratio = ours.cost / bare.cost
        rows.append(
            Row(
                f"… server CPU per message delivered{' and acknowledged' if acks else ''}",
                f"{ours.cost:.0f} µs",
                f"floor: {bare.cost:.0f} µs",
                ratio,
                "≤ 1.3 × the floor",
                ratio <= 1.3,
            )
        )
    return rows
