"""Everything a benchmark is run with, as real processes: etcd, replicas, the floor, and the load. All gone at the end."""

from __future__ import annotations

import asyncio
import bisect
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from textwrap import indent
from types import TracebackType
from typing import Any

import grpc
import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from controlplane.app import KEY_PREFIX
from controlplane.core.change import Change, Write
from controlplane.core.model import Instance
from controlplane.store.codec import Codec
from controlplane.store.embedded import EmbeddedEtcd
from controlplane.store.etcd import EtcdOptions, EtcdStore
from controlplane.store.ledger import Ledger

_START_DEADLINE = 60.0
_COMMAND_DEADLINE = 300.0
LOAD_PROCESSES = 2
_DOCUMENT = """\
apiVersion: trimtab/v1
kind: ServicePolicy
metadata: {{name: {service}, namespace: default}}
spec:
  default:
{default}
"""


@dataclass
class Server:
    """A server process. ``ready_after``: seconds from its start to its word that it serves."""

    process: asyncio.subprocess.Process
    grpc: str
    http: str
    ready_after: float
    log: deque[str] = field(default_factory=lambda: deque(maxlen=50))

    def cpu(self) -> float:
        """CPU seconds used so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def rss(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    async def metrics(self) -> dict[str, float]:
        """Its Prometheus samples without labels, by name."""
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"http://{self.http}/metrics", timeout=10)).text
        samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
        return {sample.name: sample.value for sample in samples if not sample.labels}

    async def stop(self) -> None:
        """Kill it."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class Floor(Server):
    """The bare mailbox server."""

    async def push(self, message: bytes) -> None:
        """Send ``message`` to every stream."""
        await self._call("Push", message)

    async def settle(self) -> None:
        """Freeze what it holds, as the control plane does when it is ready."""
        await self._call("Settle", b"")

    async def _call(self, method: str, request: bytes) -> None:
        async with grpc.aio.insecure_channel(self.grpc) as channel:
            await channel.unary_unary(f"/bench.Floor/{method}", bytes, bytes)(request, timeout=60)


class Fleet:
    """Load processes that act as one: a command goes to each, with its share of the streams."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    async def each(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        """The same command to every process; their answers."""
        return await self.spread([{"do": do, **arguments}] * len(self._processes))

    async def open(self, group: str, address: str, count: int, **arguments: Any) -> int:
        """Open ``count`` streams in all; bytes received by then."""
        share = -(-count // len(self._processes))
        firsts = range(0, count, share)
        commands = [
            {"do": "open", "group": group, "address": address, "first": first, "count": min(share, count - first)}
            for first in firsts
        ]
        return sum(answer["received"] for answer in await self.spread([c | arguments for c in commands]))

    async def spread(self, commands: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """One command for each process. Raises RuntimeError when one dies of it."""
        pairs = zip(self._processes, commands, strict=False)
        return list(await asyncio.gather(*(_ask(process, command) for process, command in pairs)))

    async def records(self, group: str) -> list[list[tuple[int, float]]]:
        """What each client applied since ``clear``."""
        answers = await self.each("collect", group=group)
        ended = [reason for answer in answers for reason in answer["ended"]]
        if ended:
            raise RuntimeError(f"streams ended: {ended[0]}")
        return [client for answer in answers for client in answer["records"]]

    def cpu(self) -> float:
        """CPU seconds used so far by all."""
        times = [psutil.Process(process.pid).cpu_times() for process in self._processes]
        return float(sum(t.user + t.system for t in times))


class House:
    """Starts what a benchmark asks for."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self.etcd = EmbeddedEtcd()
        self.codec = Codec(f"/{KEY_PREFIX}/default")

    async def __aenter__(self) -> House:
        await self.etcd.start()
        self._stack.push_async_callback(self.etcd.stop)
        self.store = EtcdStore(EtcdOptions(endpoints=(self.etcd.endpoint,)))
        self._stack.push_async_callback(self.store.close)
        self.ledger = Ledger(self.store, self.codec)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def replica(self, **settings: object) -> Server:
        """A control-plane process on the house's etcd, ready. ``settings`` by their names in ``controlplane.settings``."""
        values = {"etcd": self.etcd.endpoint, "grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0", **settings}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIMTAB_")}
        environment |= {f"TRIMTAB_{name.upper()}": str(value) for name, value in values.items()}
        server = await self._serve(Server, "controlplane", "serve", until="  etcd ", environment=environment)
        self._stack.push_async_callback(server.stop)
        return server

    async def floor(self) -> Floor:
        """The bare mailbox server."""
        server = await self._serve(Floor, "tests.bench.floor", until="floor ", environment=dict(os.environ))
        self._stack.push_async_callback(server.stop)
        assert isinstance(server, Floor)
        return server

    async def origin(self) -> Server:
        """A process that answers HTTP and gRPC at once."""
        server = await self._serve(Server, "tests.bench.origin", until="gRPC ", environment=dict(os.environ))
        self._stack.push_async_callback(server.stop)
        return server

    async def fleet(self, processes: int = LOAD_PROCESSES, module: str = "tests.bench.load") -> Fleet:
        """Load processes."""
        started = []
        for _ in range(processes):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=2**28,
            )
            self._stack.push_async_callback(_end, process)
            started.append(process)
        return Fleet(started)

    async def put(self, instance: Instance, lease: int = 0) -> int:
        """Write an instance straight into etcd; the revision."""
        return (await self.ledger.commit(Change(write=(Write(instance.ref, instance, lease),)))).revision

    async def put_at(self, service: str, address: str) -> int:
        """Write the one instance of a service that is really there, at HOST:PORT."""
        host, _, port = address.rpartition(":")
        return await self.put(Instance("default", service, f"{host}-{port}", host, int(port), 100))

    async def enact(self, server: Server, service: str, default: str) -> int:
        """Put a policy in force, as ``trimtab apply`` does: the ``default`` that it says; its revision."""
        async with httpx.AsyncClient(base_url=f"http://{server.http}", timeout=30) as http:
            return await enact(http, service, default)

    async def fill(self, service: str, count: int, lease: int = 0) -> None:
        """Write ``count`` instances of a service, 100 in a transaction."""
        instances = [endpoint(service, number) for number in range(count)]
        for start in range(0, count, 100):
            writes = tuple(Write(instance.ref, instance, lease) for instance in instances[start : start + 100])
            await self.ledger.commit(Change(write=writes))

    async def revision(self) -> int:
        """Where etcd stands."""
        return (await self.store.status()).revision

    async def writes(self) -> int:
        """The keys written so far, by etcd's own count: many of them may share a revision."""
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"http://{self.etcd.endpoint}/metrics", timeout=10)).text
        samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
        return int(next(sample.value for sample in samples if sample.name == "etcd_mvcc_put_total"))

    async def _serve(
        self, kind: type[Server], module: str, *arguments: str, until: str, environment: dict[str, str]
    ) -> Server:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments, stderr=asyncio.subprocess.PIPE, env=environment
        )
        server = kind(process, "", "", 0.0)
        try:
            async with asyncio.timeout(_START_DEADLINE):
                await _listen(server, until)
        except BaseException:
            await server.stop()
            raise
        server.ready_after = time.monotonic() - began
        drain = asyncio.create_task(_drain(server), name=f"log of {module}")
        self._stack.callback(drain.cancel)
        return server


def endpoint(service: str, number: int, weight: int = 100) -> Instance:
    """An instance as services have them: an address, a zone, a little metadata."""
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return Instance("default", service, f"{address}-8000", address, 8000, weight, "zone-a", {"version": "1.4.2"})


def document(service: str, default: str) -> str:
    """A policy of the namespace ``default``, as people write it."""
    return _DOCUMENT.format(service=service, default=indent(default, "    "))


async def enact(http: httpx.AsyncClient, service: str, default: str) -> int:
    """Put a policy in force over a connection that stands. Raises httpx.HTTPStatusError when it is refused."""
    path, head = f"/v1/namespaces/default/policies/{service}", {"Content-Type": "application/yaml"}
    content = document(service, default)
    answer = await http.put(path, content=content, headers=head | {"If-Match": "*"})
    if answer.status_code == httpx.codes.PRECONDITION_FAILED:
        answer = await http.put(path, content=content, headers=head | {"If-None-Match": "*"})
    return int(answer.raise_for_status().json()["revision"])


def arrivals(records: Iterable[Sequence[tuple[int, float]]], revision: int) -> list[float]:
    """When each client first held ``revision``; a client that never did is missing."""
    found = []
    for client in records:
        index = bisect.bisect_left(client, revision, key=lambda record: record[0])
        if index < len(client):
            found.append(client[index][1])
    return found


async def _ask(process: asyncio.subprocess.Process, command: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(command).encode() + b"\n")
    async with asyncio.timeout(_COMMAND_DEADLINE):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"a load process died of {command['do']!r}")
    answer: dict[str, Any] = json.loads(line)
    return answer


async def _listen(server: Server, until: str) -> None:
    """Read what the server says of its addresses."""
    assert server.process.stderr is not None
    while line := (await server.process.stderr.readline()).decode():
        server.log.append(line.rstrip())
        match line.split():
            case ["gRPC" | "floor", address]:
                server.grpc = address
            case ["HTTP", address]:
                server.http = address
        if line.startswith(until):
            return
    raise RuntimeError("the server did not start:\n" + "\n".join(server.log))


async def _drain(server: Server) -> None:
    assert server.process.stderr is not None
    while line := await server.process.stderr.readline():
        server.log.append(line.decode().rstrip())


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
