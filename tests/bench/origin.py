"""What is called end to end: an HTTP server and a gRPC server that answer at once. ``python -m tests.bench.origin``.

Prints its two addresses on stderr.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import grpc
import uvicorn
import uvloop

METHOD = "/bench.Origin/Say"
ANSWER = b'{"id": 42, "state": "paid"}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The same for every request, as an ASGI application."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


async def say(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """The same for every call."""
    return ANSWER


async def main() -> None:
    """Serve until killed."""
    listening = socket.create_server(("127.0.0.1", 0))
    http = uvicorn.Server(uvicorn.Config(answer, lifespan="off", log_level="warning", access_log=False))
    server = grpc.aio.server()
    handlers = {"Say": grpc.unary_unary_rpc_method_handler(say)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Origin", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stderr.write(f"HTTP 127.0.0.1:{listening.getsockname()[1]}\ngRPC 127.0.0.1:{port}\n")
    sys.stderr.flush()
    await http.serve(sockets=[listening])


if __name__ == "__main__":
    uvloop.run(main())
