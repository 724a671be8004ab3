"""A call over loopback through the mesh's clients, beside the same call through the same library without a mesh.

The three ways of a call take turns, one call each, to one server in a process of its own: bare, through the mesh under
what is built in, and through the mesh under a policy with breaker, limit, retry and timeout. Medians; every call has a
timeout, the bare ones too. The mesh is a real one, at a real replica on a real etcd.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from trimtab import AsyncMesh

from tests.bench.call_cost import ALL_ON
from tests.bench.house import House
from tests.bench.origin import METHOD
from tests.bench.report import Row, percentile

ROUNDS = 1500
WARM_UP = 100
TARGET = 1.05
TIMEOUT = 15.0
REQUEST = b'{"id": 42}'
PATH = "/v1/orders/42"
# A service for each port and policy: what is built in, and what a document says.
HTTP, GRPC = ("http", "http-guarded"), ("grpc", "grpc-guarded")

Ways = list[Callable[[], Any]]
Seconds = list[list[float]]


@dataclass
class Clients:
    """The mesh, and where the origin is without it."""

    mesh: AsyncMesh
    http: str
    grpc: str


async def run(house: House) -> list[Row]:
    """httpx and gRPC, blocking and awaited."""
    server, origin = await house.replica(), await house.origin()
    for services, address in ((HTTP, origin.http), (GRPC, origin.grpc)):
        for service in services:
            await house.put_at(service, address)
        await house.enact(server, services[1], ALL_ON)
    async with AsyncMesh(server.grpc, name="bench", snapshot=False, load=lambda: (0.0, 0.0)) as mesh:
        for service in (*HTTP, *GRPC):
            await mesh.wait_ready(service)
        clients = Clients(mesh, origin.http, origin.grpc)
        gc.collect()
        gc.freeze()
        return [
            *report("httpx, sync", await asyncio.to_thread(blocking_http, clients)),
            *report("httpx, async", await awaited_http(clients)),
            *report("gRPC unary, sync", await asyncio.to_thread(blocking_grpc, clients)),
            *report("gRPC unary, aio", await awaited_grpc(clients)),
        ]


def blocking_http(clients: Clients) -> Seconds:
    """GET through ``httpx.Client``."""
    with httpx.Client() as bare, clients.mesh.sync.http_client() as client:
        urls = [f"mesh://{service}{PATH}" for service in HTTP]
        return take_turns(
            [
                lambda: bare.get(f"http://{clients.http}{PATH}").raise_for_status(),
                lambda: client.get(urls[0]).raise_for_status(),
                lambda: client.get(urls[1]).raise_for_status(),
            ]
        )


async def awaited_http(clients: Clients) -> Seconds:
    """GET through ``httpx.AsyncClient``."""
    async with httpx.AsyncClient() as bare, clients.mesh.http_client() as client:
        urls = [f"mesh://{service}{PATH}" for service in HTTP]
        return await take_turns_async(
            [
                lambda: bare.get(f"http://{clients.http}{PATH}"),
                lambda: client.get(urls[0]),
                lambda: client.get(urls[1]),
            ]
        )


def blocking_grpc(clients: Clients) -> Seconds:
    """A unary call through ``grpc.Channel``."""
    channels: list[Any] = [
        grpc.insecure_channel(clients.grpc),
        *(clients.mesh.sync.grpc_channel(service) for service in GRPC),
    ]
    try:
        return take_turns([unary(channel) for channel in channels])
    finally:
        for channel in channels:
            channel.close()


async def awaited_grpc(clients: Clients) -> Seconds:
    """A unary call through ``grpc.aio.Channel``."""
    channels: list[Any] = [
        grpc.aio.insecure_channel(clients.grpc),
        *(clients.mesh.grpc_channel(service) for service in GRPC),
    ]
    try:
        return await take_turns_async([unary(channel) for channel in channels])
    finally:
        for channel in channels:
            await channel.close()


def unary(channel: Any) -> Callable[[], Any]:
    """The same call through any channel."""
    say = channel.unary_unary(METHOD, bytes, bytes)
    return lambda: say(REQUEST, timeout=TIMEOUT)


def take_turns(ways: Ways) -> Seconds:
    """Seconds of every call, by way; every round begins with another one."""
    seconds: Seconds = [[] for _ in ways]
    for number in range(WARM_UP + ROUNDS):
        for at in range(number, number + len(ways)):
            way = at % len(ways)
            began = time.perf_counter()
            ways[way]()
            seconds[way].append(time.perf_counter() - began)
    return [samples[WARM_UP:] for samples in seconds]


async def take_turns_async(ways: list[Callable[[], Awaitable[Any]]]) -> Seconds:
    """The same, awaited."""
    seconds: Seconds = [[] for _ in ways]
    for number in range(WARM_UP + ROUNDS):
        for at in range(number, number + len(ways)):
            way = at % len(ways)
            began = time.perf_counter()
            await ways[way]()
            seconds[way].append(time.perf_counter() - began)
    return [samples[WARM_UP:] for samples in seconds]


def report(what: str, seconds: Seconds) -> list[Row]:
    """One row for each way through the mesh."""
    bare = percentile(seconds[0], 0.5)
    rows = []
    for name, samples in zip((f"{what}: built in", "… breaker + limit + retry + timeout"), seconds[1:], strict=True):
        ours = percentile(samples, 0.5)
        rows.append(
            Row(
                f"{name}, p50 (added)",
                f"{ours * 1e6:.0f} µs ({(ours - bare) * 1e6:+.0f} µs, {ours / bare - 1:+.1%})",
                f"bare: {bare * 1e6:.0f} µs",
                ours / bare,
                "≤ 5 % more",
                ours / bare <= TARGET,
            )
        )
    return rows
