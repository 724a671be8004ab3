"""httpx and httpx2 in tests: the connections of a mesh transport end at a script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trimtab.http.httpx import (
    POOL_OPTIONS,
    AsyncCalls,
    AsyncMeshTransport,
    Calls,
    MeshTransport,
    async_client,
    async_transport,
    client,
    installed,
    transport,
)
from trimtab.http.pools import Pools
from trimtab.testing.script import Outcome, Reply
from trimtab.testing.stage import Stage


def staged_client(mesh: Calls, stage: Stage, **options: Any) -> Any:
    """The client that ``client`` makes, with ``stage`` between it and the network."""
    return client(mesh, **_staged(transport(mesh, **_transport_options(options)), stage, options))


def staged_async_client(mesh: AsyncCalls, stage: Stage, **options: Any) -> Any:
    """The asynchronous twin of ``staged_client``."""
    return async_client(mesh, **_staged(async_transport(mesh, **_transport_options(options)), stage, options))


def _transport_options(options: dict[str, Any]) -> dict[str, Any]:
    pool = {key: options[key] for key in POOL_OPTIONS & options.keys()}
    return {"library_name": options.get("library") or installed(), "scheme": options.get("scheme"), **pool}


def _staged(mounted: MeshTransport | AsyncMeshTransport, stage: Stage, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a client that has ``mounted`` at mesh://, where it has nothing else."""
    connect = mounted.pools.make
    mounted.pools = Pools(lambda origin: _Connections(mounted.module, stage, lambda: connect(origin)), mounted.scheme)
    return {**options, "mounts": {"mesh://": mounted, **(options.get("mounts") or {})}}


class _Connections:
    """The connections to one endpoint, real ones only if it has to answer for itself."""

    def __init__(self, module: Any, stage: Stage, connect: Callable[[], Any]) -> None:
        self._module = module
        self._stage = stage
        self._connect = connect
        self._real: Any = None

    def handle_request(self, request: Any) -> Any:
        """Answer a request."""
        outcome = self._outcome(request, b"".join(request.stream))
        if outcome is None:
            return self._connected().handle_request(request)
        self._stage.clock.sleep(outcome.seconds)
        return self._answer(outcome.reply)

    async def handle_async_request(self, request: Any) -> Any:
        """Answer a request."""
        outcome = self._outcome(request, b"".join([chunk async for chunk in request.stream]))
        if outcome is None:
            return await self._connected().handle_async_request(request)
        await self._stage.clock.pause(outcome.seconds)
        return self._answer(outcome.reply)

    def close(self) -> None:
        """Close what was opened."""
        if self._real is not None:
            self._real.close()

    async def aclose(self) -> None:
        """Close what was opened."""
        if self._real is not None:
            await self._real.aclose()

    def _outcome(self, request: Any, body: bytes) -> Outcome | None:
        url = request.url
        host = url.raw_host.decode()
        return self._stage.answer(
            f"[{host}]:{url.port}" if ":" in host else f"{host}:{url.port}",
            request.method,
            url.raw_path.decode(),
            {name.decode().lower(): value.decode("latin-1") for name, value in request.headers.raw},
            body,
            request.extensions.get("timeout", {}).get("read"),
        )

    def _connected(self) -> Any:
        if self._real is None:
            self._real = self._connect()
        return self._real

    def _answer(self, reply: Reply | BaseException) -> Any:
        module = self._module
        if isinstance(reply, Reply):
            headers, body = reply.wire()
            return module.Response(reply.status, headers=headers, stream=module.ByteStream(body))
        if isinstance(reply, ConnectionRefusedError):
            raise module.ConnectError(str(reply) or "connection refused") from reply
        if isinstance(reply, TimeoutError):
            raise module.ReadTimeout(str(reply) or "no answer") from reply
        if isinstance(reply, ConnectionError):
            raise module.ReadError(str(reply) or "connection reset") from reply
        raise reply
