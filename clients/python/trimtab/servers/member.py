"""This process as an instance of a service, from its start to its end."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trimtab.duration import parse_duration
from trimtab.errors import TrimtabError
from trimtab.servers.admission import Reception
from trimtab.servers.drain import HANDOVER, LAST_CALLS, LAST_CALLS_LIMIT, Drain
from trimtab.servers.termination import Termination

# Set for the processes of a server that is registered from outside: "run" or "gunicorn".
REGISTERED_BY = "TRIMTAB_REGISTERED_BY"

_log = logging.getLogger("trimtab")
_PROBE_INTERVAL = 0.05
_LEAVE_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """What to register: the service, where clients dial, and what is said of it. See ``Mesh.register``."""

    service: str
    port: int
    address: str | None = None
    id: str = ""
    weight: int = 0
    zone: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None


class Member:
    """Registers as starting, is ready once the port answers, drains on SIGTERM, and leaves.

    One thread lives this life from top to bottom. Nothing here fails the server: a control plane that is away is retried
    by the mesh, and a refusal is logged.
    """

    def __init__(self, mesh: Any, place: Place, *, drain: str | float = "5s") -> None:
        # An AsyncMesh shows a blocking face; this thread is not the loop's, so it may wait on it.
        self._mesh = getattr(mesh, "sync", mesh)
        self._place = place
        self.reception = Reception(self._mesh, place.service, place.namespace)
        self._limit = parse_duration(drain)
        self._stop_listening: Callable[[object], None] | None = None
        self._ending = threading.Event()
        self._terminated = False
        self._termination = Termination(self._begin_drain)
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    @property
    def draining(self) -> bool:
        """A SIGTERM has come: answers say goodbye, readiness says no."""
        return self._terminated

    def start(self, stop_listening: Callable[[object], None] | None = None) -> None:
        """Begin. Call it in the main thread, after the server has installed its signal handlers.

        ``stop_listening``, for servers that close connections while draining, is given the server's own SIGTERM handler
        and makes it accept no more. It is called in another thread.
        """
        self._stop_listening = stop_listening
        life = self._stay
        if os.environ.get(REGISTERED_BY):
            _log.info("%s is registered by its parent (%s)", self._place.service, os.environ[REGISTERED_BY])
            if stop_listening is None or not one_of_several():
                return
            life = self._hand_over
        self._termination.install()
        self._thread = threading.Thread(
            target=self._live, args=(life,), name=f"trimtab-member-{self._place.service}", daemon=True
        )
        self._thread.start()
        atexit.register(self.leave)

    def leave(self) -> None:
        """Deregister now, without a drain when there was none. Waits 2 s at most. Idempotent."""
        self._termination.restore()
        atexit.unregister(self.leave)
        self._ending.set()
        # A forked child holds a copy of this object, but not its thread.
        if self._thread is not None and self._pid == os.getpid() and self._thread is not threading.current_thread():
            self._thread.join(_LEAVE_TIMEOUT)

    def _begin_drain(self) -> None:
        # In a signal handler: set flags, take no lock that somebody may hold.
        self._terminated = True
        self._ending.set()

    def _live(self, life: Callable[[], None]) -> None:
        try:
            life()
        except TrimtabError as error:
            _log.error("%s:%s is not in the mesh: %s", self._place.service, self._place.port, error)
        except Exception:
            _log.exception("%s:%s fell out of the mesh", self._place.service, self._place.port)
        # Whatever went wrong: SIGTERM was taken from the server, and somebody must hand it on.
        self._ending.wait()
        if self._terminated:
            if self._stop_listening is not None:
                # A connection that was accepted and not yet read would be reset under its call.
                self._stop_listening(self._termination.previous)
                self._serve_on(Drain(LAST_CALLS_LIMIT, LAST_CALLS))
            self._termination.hand_on()

    def _stay(self) -> None:
        place = self._place
        registration = self._mesh.register(
            place.service,
            place.port,
            address=place.address,
            id=worker_id(place, os.getpid()) if one_of_several() else place.id,
            weight=place.weight,
            zone=place.zone or None,
            metadata=place.metadata,
            namespace=place.namespace,
            state="starting",
            wait=False,
        )
        if self._until_listening():
            registration.ready(wait=False)
        self._ending.wait()
        # Whoever could not be told of the drain is not waited for again.
        reachable = self._drain(registration) if self._terminated else True
        self._quietly("deregister", lambda: registration.deregister(timeout=_LEAVE_TIMEOUT, wait=reachable))

    def _hand_over(self) -> None:
        """A worker of a server that is registered as a whole: its siblings stay, its clients must leave it."""
        self._ending.wait()
        if self._terminated:
            self._serve_on(Drain(self._limit, HANDOVER))

    def _until_listening(self) -> bool:
        """Whether the port answered, as far as the server lived to see it."""
        host = self._place.address or "127.0.0.1"
        while not self._ending.wait(_PROBE_INTERVAL):
            try:
                socket.create_connection((host, self._place.port), timeout=1.0).close()
            except OSError:
                continue
            return True
        return False

    def _drain(self, registration: Any) -> bool:
        _log.info("%s:%s is draining", self._place.service, self._place.port)
        told = self._quietly("drain", lambda: registration.drain(timeout=min(self._limit, _LEAVE_TIMEOUT)))
        self._serve_on(Drain(self._limit))
        return told

    def _serve_on(self, drain: Drain) -> None:
        began = time.monotonic()
        while not drain.over(time.monotonic() - began, int(self._mesh.serving)):
            time.sleep(_PROBE_INTERVAL)

    def _quietly(self, what: str, act: Callable[[], None]) -> bool:
        """Whether ``act`` worked; if not, a person is told and the server goes on."""
        try:
            act()
        except TrimtabError as error:
            # A control plane that is away must not keep a server from stopping; the end of the session tells it too.
            _log.warning("%s: could not %s: %s", self._place.service, what, error)
            return False
        return True


def one_of_several() -> bool:
    """Whether this process shares its port with sibling workers: those of gunicorn, or uvicorn's with ``--workers``."""
    under_gunicorn = "gunicorn.arbiter" in sys.modules and "gunicorn" in os.environ.get("SERVER_SOFTWARE", "")
    return under_gunicorn or multiprocessing.parent_process() is not None


def worker_id(place: Place, pid: int) -> str:
    """The id of one worker among several on a port: what names the server, and the worker's process id."""
    base = place.id or f"{place.address or socket.gethostname()}-{place.port}"
    return f"{base}-w{pid}"
