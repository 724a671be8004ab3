"""The demo's processes: started, hurt, and never left behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from deploy.demo import leash

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT = 5.0
LOG_TAIL = 1500


class DemoError(Exception):
    """The demo itself cannot go on; the message tells a person why."""


class Program:
    """A process that dies with us and does not hear our Ctrl-C. Start it from the main thread."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        piped: bool = False,
    ) -> Program:
        """Start ``command``, an absolute path and its arguments; its output is appended to ``log``.

        With ``piped``, its standard output can be read from ``lines`` instead.
        """
        # A mesh that this shell is set up for is not the demo's.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRIMTAB_")}
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", leash.__name__, str(os.getpid())),
                *command,
                cwd=ROOT,
                env=inherited | dict(environment or {}),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if piped else output,
                stderr=output,
                start_new_session=True,
                limit=2**20,
            )
        return cls(name, process, log)

    @property
    def alive(self) -> bool:
        """It runs, or is frozen."""
        return self._process.returncode is None

    @property
    def lines(self) -> asyncio.StreamReader:
        """Standard output of a ``piped`` program."""
        assert self._process.stdout is not None
        return self._process.stdout

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; to a program that is gone, nothing."""
        # Not by the process object: it would look whether the program ended, and take that news from asyncio.
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def ended(self, timeout: float = STOP_TIMEOUT) -> int:
        """Wait for its end; the exit status, negative for a signal. Raises DemoError when it goes on."""
        try:
            async with asyncio.timeout(timeout):
                return await self._process.wait()
        except TimeoutError:
            raise DemoError(f"{self.name} did not end within {timeout:.0f} s\n{self.tail()}") from None

    async def stop(self) -> None:
        """End it, whatever state it is in."""
        if self.alive:
            self.signal(signal.SIGKILL)
            await self.ended()

    def tail(self) -> str:
        """The end of its log, for an error message."""
        return self._log.read_text(errors="replace")[-LOG_TAIL:].strip()


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to outgoing connections.

    A server that dies for some seconds finds it free again: no connection was given it meanwhile.
    """
    for _ in range(1000):
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise DemoError("no port between 15000 and 32000 is free")
