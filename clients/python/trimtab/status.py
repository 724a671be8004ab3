"""How a process shows itself: to its program, and to the mesh."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import time
import uuid
from dataclasses import dataclass

from trimtab.settings import Settings
from trimtab.stream import Link
from trimtab.v1.types_pb2 import Node


@dataclass(frozen=True, slots=True)
class Status:
    """Where this process stands towards the mesh.

    ``session_state``: none, attached, pending, resuming or lost. ``revision``: store revision up to which everything
    followed is complete. ``stale``: without a server, so that what is known may be old; ``lag``: for how many seconds (None:
    there never was one). ``connects`` counts streams opened so far.
    """

    connected: bool
    server: str
    replica: str
    session: str
    session_state: str
    revision: int
    stale: bool
    lag: float | None
    services: int
    connects: int
    last_error: str


def status_of(link: Link, revision: int, services: int) -> Status:
    """The status of a process with this connection, which follows so many ``services``."""
    return Status(
        connected=link.connected,
        server=link.server,
        replica=link.replica,
        session=link.session,
        session_state=link.session_state,
        revision=revision,
        stale=not link.connected,
        lag=0.0 if link.connected else None if link.away_since is None else time.monotonic() - link.away_since,
        services=services,
        connects=link.connects,
        last_error=str(link.last_error or ""),
    )


def node_of(settings: Settings) -> Node:
    """This process, as it introduces itself; another one at each call."""
    try:
        version = importlib.metadata.version("trimtab")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    host = socket.gethostname()
    return Node(
        id=f"{host[:60]}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
        namespace=settings.namespace,
        name=settings.name,
        sdk=f"trimtab-python/{version}",
        host=host,
        pid=os.getpid(),
        zone=settings.zone,
        labels=settings.labels,
    )
