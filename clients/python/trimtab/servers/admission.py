"""What servers of all protocols have in common: what callers say of their calls, and how these wait at the gate."""

from __future__ import annotations

import asyncio
import json
import threading
from math import ceil
from typing import Any, NamedTuple, Protocol

from trimtab.errors import (
    DeadlineExceeded,
    MeshClosed,
    Overloaded,
    RateLimited,
    Rejected,
    SettingsInvalid,
    TrimtabError,
)
from trimtab.gate import Gate, Visit
from trimtab.load_meter import LoadMeter
from trimtab.policy.sections import PRIORITY

# Paths of health checks, which must be answered above all by a server that has too much to do.
HEALTH_PATHS = ("/healthz", "/livez", "/readyz")

REFUSALS: dict[type[TrimtabError], int] = {Overloaded: 503, RateLimited: 429, DeadlineExceeded: 504}


class Reception:
    """What this process serves, for one middleware: the count of calls under way, the meter of its load, and the gate."""

    def __init__(self, mesh: Any, service: str, namespace: str | None = None) -> None:
        if not service:
            raise SettingsInvalid("the middleware does not know what it serves", hint="give mesh= and service=")
        # An AsyncMesh shows a blocking face; nothing that is asked of it here waits for the network.
        mesh = getattr(mesh, "sync", mesh)
        self.serving = mesh.serving
        self.meter: LoadMeter = mesh.load_meter
        self._mesh = mesh
        self._service = service
        self._namespace = namespace
        self.gate: Gate | None = None

    def open(self) -> Gate | None:
        """Follow the policies of the service from now on; may read the disk. None: the mesh is closed, everybody may in."""
        try:
            self.gate = self._mesh.gate(self._service, namespace=self._namespace)
        except MeshClosed:
            return None
        return self.gate


def timeout_of(told: str) -> float | None:
    """The seconds that a caller gives its call, by its header ``trimtab-timeout-ms``; None: it says nothing that can be read."""
    return int(told) / 1000 if told.isdecimal() and len(told) <= 12 else None


def priority_of(told: str) -> str:
    """The priority that a caller gives its call, by its header ``trimtab-priority``; empty: none that there is."""
    return told if told in PRIORITY.words else ""


def wait(visit: Visit) -> bool:
    """Hold the thread up until the call is inside; False when it was left meanwhile. Raises Rejected, DeadlineExceeded."""
    woken = threading.Event()
    visit.wake = woken.set
    clock = visit.clock
    while not visit.over:
        visit.proceed(clock.now())
        if visit.until is None:
            return True
        clock.wait(woken, max(0.0, visit.until - clock.now()))
    return False


class Listener(Protocol):
    """Hears that a client went away. ``gone``: it did."""

    gone: bool

    def listen(self) -> asyncio.Future[Any] | None:
        """Something that is done when there may be news; None: nothing can be heard now."""
        ...


async def wait_awaiting(visit: Visit, listener: Listener | None = None) -> bool:
    """The same for asyncio; False when the client went away."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        # A loop that is gone has nobody left who waits.
        if not loop.is_closed():
            loop.call_soon_threadsafe(_finish, woken)

    visit.wake, clock = wake, visit.clock
    while True:
        visit.proceed(clock.now())
        if visit.until is None:
            return True
        news = listener.listen() if listener is not None else None
        time_up = asyncio.ensure_future(clock.pause(max(0.0, visit.until - clock.now())))
        try:
            first = [woken, time_up] if news is None else [woken, time_up, news]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            time_up.cancel()
        if listener is not None and listener.gone:
            return False


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Problem(NamedTuple):
    """An HTTP answer to a call that was not taken on."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def problem(error: TrimtabError) -> Problem:
    """What the caller of a refused call is told."""
    body = json.dumps({"code": error.code, "message": error.message}).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    if isinstance(error, Rejected):
        # Whole seconds (RFC 9110, 10.2.3), rounded up: whoever comes then does not come too early.
        headers.append(("retry-after", str(max(1, ceil(error.retry_after)))))
    return Problem(REFUSALS[type(error)], headers, body)
