"""aiohttp in tests: what a mesh session would send ends at a script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp import ClientRequest, ClientResponse

from trimtab.http.aiohttp import Handler, LocalResponse, MeshMiddleware, session
from trimtab.http.httpx import Calls
from trimtab.http.target import SCHEME
from trimtab.testing.script import Reply
from trimtab.testing.stage import Stage


def staged_session(
    mesh: Calls, stage: Stage, *, scheme: str | None = None, middlewares: Sequence[Any] = (), **options: Any
) -> aiohttp.ClientSession:
    """The session that ``session`` makes, with ``stage`` between it and the network."""
    return session(mesh, scheme=scheme, middlewares=(*middlewares, _StagedMiddleware(mesh, stage, scheme)), **options)


class _StagedMiddleware(MeshMiddleware):
    """Stands before the session's own, which sees nothing for the mesh any more."""

    def __init__(self, mesh: Calls, stage: Stage, scheme: str | None) -> None:
        super().__init__(mesh, scheme)
        self._stage = stage

    async def __call__(self, request: ClientRequest, handler: Handler) -> ClientResponse:
        """One call, or what is not for the mesh."""

        async def staged(request: ClientRequest) -> ClientResponse:
            if request.original_url.scheme == SCHEME:
                answer = await self._answer(request)
                if answer is not None:
                    return answer
            return await handler(request)  # type: ignore[no-any-return]

        return await super().__call__(request, staged)

    async def _answer(self, request: ClientRequest) -> ClientResponse | None:
        limits = request.session.timeout
        outcome = self._stage.answer(
            request.url.authority,
            request.method,
            request.url.raw_path_qs,
            {name.lower(): value for name, value in request.headers.items()},
            request.body if isinstance(request.body, bytes) else await request.body.as_bytes(),
            limits.sock_read or limits.total,
        )
        if outcome is None:
            return None
        await self._stage.clock.pause(outcome.seconds)
        reply = outcome.reply
        if isinstance(reply, Reply):
            headers, body = reply.wire()
            raw = [(name.encode(), value.encode()) for name, value in headers.items()]
            return LocalResponse(request, reply.status, raw, body)
        told = str(reply)
        if isinstance(reply, ConnectionRefusedError):
            raise aiohttp.ClientConnectorError(request.connection_key, reply)
        if isinstance(reply, TimeoutError):
            raise aiohttp.ServerTimeoutError(told or "no answer") from reply
        if isinstance(reply, ConnectionError):
            raise aiohttp.ServerDisconnectedError(told or "connection reset") from reply
        raise reply
