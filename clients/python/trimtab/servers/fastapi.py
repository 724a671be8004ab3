"""FastAPI and Starlette in a mesh.

>>> mesh = Mesh()
>>> app = FastAPI(lifespan=mesh.fastapi("orders", port=8000, drain="5s"))
>>> app.add_middleware(MeshServer)

On SIGTERM the instance is marked as draining, serves on while its clients move away, and only then does the server see the
signal. uvicorn would else close its listeners before anybody knew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from trimtab.servers.asgi import MeshServer as MeshServer
from trimtab.servers.member import Member, Place

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(
    mesh: Any,
    service: str,
    *,
    port: int,
    drain: str | float = "5s",
    address: str | None = None,
    id: str = "",
    weight: int = 0,
    zone: str = "",
    metadata: Mapping[str, str] | None = None,
    namespace: str | None = None,
    lifespan: Lifespan | None = None,
) -> Lifespan:
    """A lifespan that keeps ``service`` registered while the application serves on ``port``.

    ``drain`` bounds how long it serves on after SIGTERM. ``lifespan`` is the application's own, which runs inside. The rest is
    as in ``Mesh.register``. Raises ValueError for a drain that is no duration.
    """
    place = Place(service, port, address, id, weight, zone, metadata or {}, namespace)
    member = Member(mesh, place, drain=drain)

    @asynccontextmanager
    async def serve(app: Any) -> AsyncIterator[Any]:
        app.state.trimtab = member
        member.start(partial(_stop_listening, asyncio.get_running_loop()))
        try:
            if lifespan is None:
                yield
            else:
                async with lifespan(app) as state:
                    yield state
        finally:
            await asyncio.to_thread(member.leave)

    return serve


def _stop_listening(loop: asyncio.AbstractEventLoop, handler: object) -> None:
    """uvicorn's handler is a method of its server, whose ``servers`` accept connections. Of others nothing is known."""
    for listener in getattr(getattr(handler, "__self__", None), "servers", ()):
        loop.call_soon_threadsafe(listener.close)
