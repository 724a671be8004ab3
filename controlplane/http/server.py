"""The HTTP listener, bound early so that a taken port is an error at start; what answers on it comes later."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controlplane.transport.port import bind

if TYPE_CHECKING:
    from fastapi import FastAPI

    from controlplane.http.unsignalled import Server


class HttpServer:
    """One listening HTTP server. Raises SETTINGS when ``address`` (HOST:PORT, port 0: any) cannot be bound."""

    def __init__(self, address: str, cert: Path | None, key: Path | None, client_ca: Path | None) -> None:
        self._socket = bind(address, "http_address")
        self.port: int = self._socket.getsockname()[1]
        self._tls = {
            "ssl_certfile": cert and str(cert),
            "ssl_keyfile": key and str(key),
            "ssl_ca_certs": client_ca and str(client_ca),
            "ssl_cert_reqs": ssl.CERT_REQUIRED if client_ca else ssl.CERT_NONE,
        }
        self._server: Server | None = None
        self._stopped = False
        self.answering = asyncio.Event()

    async def serve(self, api: FastAPI) -> None:
        """Serve until ``stop``; ``answering`` is set when callers wait no longer."""
        server = await asyncio.to_thread(_uvicorn, api, self._tls)
        if not self._stopped:
            self._server = server
            self.answering.set()
            await server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Let requests in progress finish, then let ``serve`` return. Before ``serve``: give the port back."""
        self._stopped = True
        if self._server is None:
            self._socket.close()
        else:
            self._server.should_exit = True


def _uvicorn(api: FastAPI, tls: dict[str, Any]) -> Server:
    # Imported in a thread, beside what else a replica does to become ready.
    from controlplane.http.unsignalled import Server

    return Server(api, tls)
