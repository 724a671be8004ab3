"""A town: one etcd, some replicas, some clients. What a test starts is gone when the town is cleared."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.etcd import Member
from tests.support.town.archive import Archive
from tests.support.town.client import Client
from tests.support.town.process import LOG_TAIL, Process
from tests.support.town.replica import Replica

# Short times, and still some room for a busy machine. ``replica_ttl`` is the least that etcd keeps in practice.
SHORT: Mapping[str, object] = {
    "heartbeat_interval": 0.5,
    "heartbeat_window": 4,
    "session_ttl": 60,
    "replica_ttl": 3,
    "adoption_grace": 2,
    "guard_hold": 4,
    "drain_spread": 0.5,
    "log_level": "info",
}


class Town:
    """Everything under one directory. ``settings`` are the replicas', over ``SHORT``."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.directory = directory
        self.settings = {**SHORT, **settings}
        self.etcd = Member(directory, "etcd", client_port=free_port())
        # An outage must not cost the port: no outgoing connection is given one of these.
        self.etcd.peer_url = f"http://127.0.0.1:{free_port()}"
        self.replicas: list[Replica] = []
        self.clients: dict[str, Client] = {}
        self.programs: list[Process] = []
        # What clients need to be let in.
        self.environment: Mapping[str, str] = {}
        self._archive: Archive | None = None
        self.start_etcd()

    # etcd

    def start_etcd(self) -> None:
        """Start it (again), and wait until it takes connections."""
        self.etcd.start()
        asyncio.run(self.etcd.listening())

    @property
    def archive(self) -> Archive:
        """etcd's content."""
        if self._archive is None:
            self._archive = Archive(self.etcd.endpoint)
        return self._archive

    # The control plane

    def add_replicas(self, number: int = 1) -> list[Replica]:
        """Start replicas, and wait until they are ready."""
        added = [self.new_replica() for _ in range(number)]
        for replica in added:
            replica.ready()
        return added

    def new_replica(self) -> Replica:
        """Start one more; it is not waited for."""
        name = f"replica-{len(self.replicas)}"
        log = self.directory / f"{name}.log"
        replica = Replica(name, self.etcd.endpoint, free_port(), free_port(), self.settings, log=log)
        self.replicas.append(replica)
        return replica

    @property
    def servers(self) -> list[str]:
        return [replica.address for replica in self.replicas]

    # Clients

    def client(self, name: str, **settings: Any) -> Client:
        """Start a client process; by default of all replicas. It is not waited for."""
        settings = {"servers": self.servers, "snapshot_dir": str(self.directory / "snapshots"), **settings}
        client = Client(name, settings, log=self.directory / f"{name}.log", environment=self.environment)
        self.clients[name] = client
        return client

    def fleet(self, service: str, number: int, **settings: Any) -> list[Client]:
        """Clients that each serve one instance, whose id is the client's name: SERVICE-0, SERVICE-1, …"""
        members = [self.client(f"{service}-{index}", **settings) for index in range(number)]
        for member in members:
            member.serve(service, member.name, free_port())
        return members

    def run(
        self, name: str, *command: str, environment: Mapping[str, str] | None = None, piped: bool = False
    ) -> Process:
        """Run any program."""
        log = self.directory / f"{name}.log"
        program = Process(name, command, log=log, environment=environment, piped=piped)
        self.programs.append(program)
        return program

    def trimtab(
        self, *arguments: str, name: str = "", piped: bool = False, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Run the command line towards the first replica."""
        towards = {}
        if self.replicas:
            towards = {
                "TRIMTAB_HTTP": f"http://{self.replicas[0].http_address}",
                "TRIMTAB_SERVERS": ",".join(self.servers),
            }
        command = (sys.executable, "-m", "controlplane", *arguments)
        name = name or f"trimtab-{len(self.programs)}"
        return self.run(name, *command, environment=towards | dict(environment or {}), piped=piped)

    # The end

    def logs(self) -> list[tuple[str, str]]:
        """The end of every log, by name."""
        return [
            (path.stem, path.read_text(errors="replace")[-LOG_TAIL:]) for path in sorted(self.directory.glob("*.log"))
        ]

    def clear(self) -> None:
        """End every process."""
        for process in (*self.clients.values(), *self.programs):
            process.clear()
        for replica in self.replicas:
            replica.clear()
        if self._archive is not None:
            self._archive.close()
        self.etcd.stop()


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to outgoing connections."""
    for _ in range(1000):
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port between 15000 and 32000 is free")
