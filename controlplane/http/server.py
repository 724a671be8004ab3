"""The HTTP listener: uvicorn on the replica's own loop, bound early so that a taken port is an error at start."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Generator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from controlplane.errors import Code, TrimtabError

_SHUTDOWN = 2
_BACKLOG = 1024


class HttpServer:
    """One listening HTTP server. Raises SETTINGS when ``address`` (HOST:PORT, port 0: any) cannot be bound."""

    def __init__(self, address: str, cert: Path | None, key: Path | None, client_ca: Path | None) -> None:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, int(port)))
            self._socket.listen(_BACKLOG)  # from here on a caller waits rather than being refused, and the port is ours
        except OSError as error:
            self._socket.close()
            raise TrimtabError(
                Code.SETTINGS,
                f"http_address {address} cannot be bound: {error}",
                hint="another process may hold the port: choose another one, or port 0 for any",
            ) from None
        self.port: int = self._socket.getsockname()[1]
        self._tls = {
            "ssl_certfile": cert and str(cert),
            "ssl_keyfile": key and str(key),
            "ssl_ca_certs": client_ca and str(client_ca),
            "ssl_cert_reqs": ssl.CERT_REQUIRED if client_ca else ssl.CERT_NONE,
        }
        self._server: uvicorn.Server | None = None

    async def serve(self, api: FastAPI) -> None:
        """Serve until ``stop``."""
        config = uvicorn.Config(
            api,
            log_config=None,
            log_level="warning",
            server_header=False,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_SHUTDOWN,
            **self._tls,  # type: ignore[arg-type]
        )
        self._server = _Server(config)
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Let requests in progress finish, then let ``serve`` return. Before ``serve``: give the port back."""
        if self._server is None:
            self._socket.close()
        else:
            self._server.should_exit = True


class _Server(uvicorn.Server):
    """Leaves the signals to the replica, which has more to do than to stop HTTP."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
