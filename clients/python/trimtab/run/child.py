"""The supervised program as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from trimtab.run import leash
from trimtab.servers.member import REGISTERED_BY


class Child:
    """One run of the command, in a process group of its own, so that Ctrl+C in a terminal reaches the supervisor only."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, command: list[str]) -> Child:
        """Start it; it dies with this process (Linux) and is told that it is registered already.

        Raises OSError for a command that does not exist or cannot be run.
        """
        environment = {**os.environ, REGISTERED_BY: "run"}
        if not sys.platform.startswith("linux"):
            return cls(await asyncio.create_subprocess_exec(*command, env=environment, process_group=0))
        told, report = os.pipe()
        with os.fdopen(told, "rb") as hearing:
            try:
                argv = [sys.executable, "-I", "-S", str(Path(leash.__file__)), str(os.getpid()), str(report), *command]
                process = await asyncio.create_subprocess_exec(
                    *argv, env=environment, process_group=0, pass_fds=(report,)
                )
            finally:
                os.close(report)
            # The other end is closed as soon as the process has become the command, or has ended.
            errno = await asyncio.to_thread(hearing.read)
        if errno:
            await process.wait()
            raise OSError(int(errno), os.strerror(int(errno)), command[0])
        return cls(process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Its return code, negative for a signal."""
        return await self._process.wait()

    async def stop(self, timeout: float) -> int:
        """Ask by SIGTERM, insist by SIGKILL to its whole group after ``timeout`` seconds. Returns its return code."""
        with suppress(ProcessLookupError):  # it ended by itself meanwhile
            self._process.terminate()
        try:
            async with asyncio.timeout(timeout):
                return await self._process.wait()
        except TimeoutError:
            self.kill()
            return await self._process.wait()

    def kill(self) -> None:
        """SIGKILL to its whole group."""
        with suppress(ProcessLookupError):  # the group is empty already
            os.killpg(self._process.pid, signal.SIGKILL)
