"""Real servers as processes of their own, and a steady caller that counts what fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trimtab import Mesh

APPS = Path(__file__).parent / "apps"
DEADLINE = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str) -> Any:
    """The first truth that ``condition`` tells, polled; fails after a generous deadline."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {DEADLINE:g} s: {what}")


class Server:
    """A server process; ``restart`` starts another one in its place."""

    def __init__(self, mesh_address: str, port: int, log: Path, *command: str) -> None:
        self.port = port
        self._command = [sys.executable, "-m", *(word.replace("PORT", str(port)) for word in command)]
        self._environment = {
            **os.environ,
            "PORT": str(port),
            "TRIMTAB_SERVERS": mesh_address,
            "PYTHONPATH": str(APPS),
            "TRIMTAB_TOKEN": "",
        }
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, cwd=APPS, start_new_session=True
            )

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def wait(self) -> int:
        return self.process.wait(DEADLINE)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def end(self) -> None:
        """Whatever is left of it."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait(DEADLINE)


class Shopper:
    """Calls at a steady pace from several threads, through one client."""

    def __init__(self, mesh: Mesh, threads: int = 4, pace: float = 0.01, **options: Any) -> None:
        self._http = mesh.http_client(timeout=10.0, **options)
        self._pace = pace
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._shop, daemon=True) for _ in range(threads)]
        self.served: Counter[int] = Counter()
        self.pids: Counter[int] = Counter()
        self.failures: list[str] = []

    @property
    def calls(self) -> int:
        return sum(self.served.values()) + len(self.failures)

    def _shop(self) -> None:
        while not self._stopping.wait(self._pace):
            try:
                answer = self._http.get("mesh://orders/v1/42?pause=0.02").raise_for_status().json()
            except Exception as error:  # every kind of failure is a lost call
                self.failures.append(repr(error))
            else:
                self.served[answer["port"]] += 1
                self.pids[answer["pid"]] += 1

    def __enter__(self) -> Shopper:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(DEADLINE)
        self._http.close()

    def goes_on(self, calls: int = 50) -> None:
        """Wait until it has made that many more calls."""
        goal = self.calls + calls
        until(lambda: self.calls >= goal, f"{calls} more calls")


@contextmanager
def fleet(mesh_address: str, tmp_path: Path, ports: list[int], *command: str) -> Iterator[list[Server]]:
    """One server on each port, ended whatever happens."""
    servers = [Server(mesh_address, port, tmp_path / f"server-{port}.log", *command) for port in ports]
    try:
        yield servers
    finally:
        for server in servers:
            server.end()
