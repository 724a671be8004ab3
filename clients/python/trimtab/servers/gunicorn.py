"""A gunicorn server as one instance, however many workers it has. In ``gunicorn.conf.py``:

>>> from trimtab.servers.gunicorn import mesh_instance
>>> bind, workers = "0.0.0.0:8000", 4
>>> when_ready, on_exit = mesh_instance("orders", drain="5s")

The registration belongs to the arbiter and outlives every worker, so that a worker's death, ``kill -HUP`` and ``--max-requests``
leave it alone. It lives in a small process beside the arbiter (``python -m trimtab.run`` without a command), because gRPC
and a process that forks its workers do not go together. On SIGTERM it drains first; only then do the workers learn.

``kill -USR2`` (a second arbiter on the same sockets) moves the registration when the old arbiter is gone, which leaves a
service with a single instance unlisted for a moment: use HUP, or more than one instance.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from trimtab.duration import parse_duration
from trimtab.servers.member import REGISTERED_BY
from trimtab.servers.termination import Termination

_log = logging.getLogger("trimtab")
Hook = Callable[[Any], None]

# The registrar's own time on top of the drain: to reach a control plane that may be away. Seconds.
_MARGIN = 5.0
_LEAVE_TIMEOUT = 2.0
_RESPAWN_DELAY = 1.0


def mesh_instance(
    service: str,
    *,
    port: int | None = None,
    drain: str | float = "5s",
    check: str = "http",
    address: str | None = None,
    id: str = "",
    weight: int | None = None,
    zone: str = "",
    metadata: Mapping[str, str] | None = None,
    namespace: str | None = None,
) -> tuple[Hook, Hook]:
    """The hooks ``when_ready`` and ``on_exit`` that keep the server registered as ``service``.

    ``port`` is by default that of the first TCP socket that gunicorn listens on; ``check`` is as in ``trimtab run``: the
    arbiter's socket accepts long before a worker is there, so that by default a first answer in HTTP is waited for. The
    rest is as in ``Mesh.register``. Raises ValueError for a drain that is no duration.
    """
    seconds = parse_duration(drain)
    extra = ["--drain", f"{seconds}s", "--check", check, "--zone", zone, "--id", id]
    extra += ["--address", address] if address else []
    extra += ["--weight", str(weight)] if weight else []
    extra += ["--namespace", namespace] if namespace else []
    for key, value in (metadata or {}).items():
        extra += ["--metadata", f"{key}={value}"]

    def when_ready(arbiter: Any) -> None:
        """Called by gunicorn when it listens, before it forks its workers."""
        os.environ[REGISTERED_BY] = "gunicorn"
        where = port or _listening_port(arbiter)
        arguments = ["--service", service, "--port", str(where), "--with-parent", str(os.getpid()), *extra]
        arbiter.trimtab = Registrar(arguments, patience=seconds + _MARGIN)
        arbiter.trimtab.start()

    def on_exit(arbiter: Any) -> None:
        """Called by gunicorn when its workers are gone. HUP may have replaced this hook by its twin, so ask the arbiter."""
        arbiter.trimtab.leave()

    return when_ready, on_exit


class Registrar:
    """The process that is registered in the arbiter's place, started again when it dies, and the arbiter's SIGTERM."""

    def __init__(self, arguments: list[str], *, patience: float) -> None:
        self._argv = [sys.executable, "-m", "trimtab.run", *arguments]
        self._patience = patience
        self._ending = threading.Event()
        self._termination = Termination(self._begin)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and take SIGTERM. In the arbiter's main thread."""
        self._process = subprocess.Popen(self._argv)
        self._termination.install()
        threading.Thread(target=self._attend, name="trimtab-registrar", daemon=True).start()

    def leave(self) -> None:
        """Leave the mesh now, if that was not done by a drain. Waits 2 s at most."""
        self._ending.set()
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(_LEAVE_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()

    def _begin(self) -> None:
        self._ending.set()
        if self._process is not None:
            self._process.terminate()
        # The drain is waited for elsewhere: gunicorn goes on to mind its workers meanwhile.
        threading.Thread(target=self._hand_on_when_drained, name="trimtab-registrar-drain", daemon=True).start()

    def _hand_on_when_drained(self) -> None:
        deadline = time.monotonic() + self._patience
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        self._termination.hand_on()

    def _attend(self) -> None:
        while not self._ending.wait(_RESPAWN_DELAY):
            if self._process is not None and self._process.poll() is not None:
                _log.warning("the registrar of this server ended; it is started again")
                self._process = subprocess.Popen(self._argv)


def _listening_port(arbiter: Any) -> int:
    for listener in arbiter.LISTENERS:
        name = listener.getsockname()
        if isinstance(name, tuple):
            return int(name[1])
    raise ValueError("gunicorn listens on no TCP port: give mesh_instance(…, port=…) where clients dial")
