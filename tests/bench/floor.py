"""The floor: the barest server that can push to thousands of streams. ``python -m tests.bench.floor``.

grpc.aio on uvloop, a mailbox per stream, bytes encoded once by whoever pushes. It knows no sessions, no store and no
subscriptions; what the control plane costs above it is the price of those. Prints its port on stderr.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import grpc
import uvloop

BATCH = 50
# What thousands of streams need of gRPC's C core, and the keepalive that the control plane has.
_OPTIONS = (
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_SUBSCRIBE = 0x32  # tag of ClientMessage.subscribe: the one request that is answered


class Floor:
    """Streams and their mailboxes."""

    def __init__(self) -> None:
        self._boxes: dict[asyncio.Event, list[bytes]] = {}
        self._newest = b""

    async def connect(self, requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """A stream: its newest message at once, then whatever is pushed; a Subscribe is answered by the newest."""
        woken = asyncio.Event()
        box = self._boxes[woken] = [self._newest]
        woken.set()
        writer = asyncio.create_task(self._write(context, box, woken))
        try:
            while isinstance(raw := await context.read(), bytes):
                if raw[0] == _SUBSCRIBE:
                    box[:] = [self._newest]
                    woken.set()
        finally:
            del self._boxes[woken]
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def push(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """Send ``request`` to every stream."""
        self._newest = request
        for number, (woken, box) in enumerate(tuple(self._boxes.items()), 1):
            box[:] = [request]
            woken.set()
            if number % BATCH == 0:
                await asyncio.sleep(0)
        return b""

    async def settle(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """Give the garbage collector what the control plane gives it."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        return b""

    @staticmethod
    async def _write(context: grpc.aio.ServicerContext[bytes, bytes], box: list[bytes], woken: asyncio.Event) -> None:
        while True:
            await woken.wait()
            woken.clear()
            while box:
                await context.write(box.pop())


async def main() -> None:
    """Serve until killed."""
    floor = Floor()
    server = grpc.aio.server(options=list(_OPTIONS))
    mesh = {"Connect": grpc.stream_stream_rpc_method_handler(floor.connect)}
    control = {
        "Push": grpc.unary_unary_rpc_method_handler(floor.push),
        "Settle": grpc.unary_unary_rpc_method_handler(floor.settle),
    }
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("trimtab.v1.Mesh", mesh),
            grpc.method_handlers_generic_handler("bench.Floor", control),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stderr.write(f"floor 127.0.0.1:{port}\n")
    sys.stderr.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
