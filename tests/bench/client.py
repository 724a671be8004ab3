"""One client of the mesh stream, as cheap as a client can be: it applies, acknowledges, and remembers when."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import lru_cache

from trimtab.v1 import mesh_pb2, types_pb2

from tests.bench.wire import Wire, message_frame, opening

PATH = "/trimtab.v1.Mesh/Connect"
HEARTBEAT = message_frame(mesh_pb2.ClientMessage(heartbeat=mesh_pb2.Heartbeat()).SerializeToString())
ENDPOINTS, CONFIG = types_pb2.KIND_ENDPOINTS, types_pb2.KIND_CONFIG
Name = tuple[int, str]


class Refused(Exception):
    """The server ended the stream, or refused a request."""


@dataclass(frozen=True)
class Registration:
    """What a client registers, once its stream stands."""

    service: str
    port: int

    def message(self, request_id: int) -> mesh_pb2.ClientMessage:
        """The request."""
        instance = types_pb2.Instance(service=self.service, address="10.0.0.1", port=self.port)
        return mesh_pb2.ClientMessage(register=mesh_pb2.Register(request_id=request_id, instance=instance))


@lru_cache(64)
def _parsed(raw: bytes) -> mesh_pb2.ServerMessage:
    """Thousands of clients are told the same in the same bytes; to parse them anew would be load, not measurement."""
    return mesh_pb2.ServerMessage.FromString(raw)


@dataclass(frozen=True, slots=True)
class Delta:
    """What a client remembers of a delta, and the delta."""

    nonce: int
    version: int
    held: dict[Name, tuple[int, int]]
    message: mesh_pb2.Delta


@lru_cache(64)
def _delta(raw: bytes) -> Delta:
    delta = _parsed(raw).delta
    held: dict[Name, tuple[int, int]] = {
        (resource.kind, resource.name): (resource.version, resource.digest) for resource in delta.resources
    }
    return Delta(delta.nonce, delta.version, held, delta)


@lru_cache(4096)
def _ack(nonce: int) -> bytes:
    return message_frame(mesh_pb2.ClientMessage(ack=mesh_pb2.Ack(nonce=nonce)).SerializeToString())


class Client:
    """A stream that reconnects when told to, resuming its session and naming what it holds.

    With ``acks`` off, acknowledgements are kept back until ``acknowledge``. ``records`` are the applied deltas: version
    and ``time.monotonic()``.
    """

    def __init__(self, node: str, names: tuple[Name, ...] = (), registration: Registration | None = None) -> None:
        self.node = node
        self.names = names
        self.registration = registration
        self.held: dict[Name, tuple[int, int]] = {}
        self.handle = ""
        self.acks = True
        self.records: list[tuple[int, float]] = []
        self.attached_at = 0.0
        self.ended = ""
        self._committed: dict[int, asyncio.Future[None]] = {}
        self._settled: asyncio.Future[None] | None = None
        self._wire: Wire | None = None
        self._missing: set[Name] = set()
        self._request_id = 0
        self._owed: list[int] = []

    @property
    def received(self) -> int:
        """Bytes that came in on the current connection."""
        return self._wire.received if self._wire is not None else 0

    async def connect(self, host: str, port: int, deadline: float = 60.0) -> None:
        """Open a stream and return when it stands: welcomed, registered, or attached, and told what it lacks.

        Raises Refused, OSError, TimeoutError.
        """
        loop = asyncio.get_running_loop()
        self.ended, self.attached_at = "", 0.0
        self._settled = loop.create_future()
        self._owed.clear()
        self._missing = {name for name in self.names if name not in self.held}
        wire = Wire(opening(PATH, f"{host}:{port}"), self._on_message, self._on_closed)
        self._wire = wire
        await loop.create_connection(lambda: wire, host, port)
        self.send(self._hello())
        await asyncio.wait_for(self._settled, deadline)
        if self.registration is not None and not self.handle:
            await asyncio.wait_for(self.register(self.registration), deadline)

    def _hello(self) -> mesh_pb2.ClientMessage:
        subscriptions = [
            mesh_pb2.Subscription(kind=kind, name=name, version=held[0], digest=held[1])  # type: ignore[arg-type]
            for kind, name in self.names
            for held in (self.held.get((kind, name), (0, 0)),)
        ]
        node = types_pb2.Node(id=self.node, sdk="bench")
        return mesh_pb2.ClientMessage(hello=mesh_pb2.Hello(node=node, resume=self.handle, subscriptions=subscriptions))

    def send(self, message: mesh_pb2.ClientMessage) -> None:
        """Send a message."""
        self.send_frames(message_frame(message.SerializeToString()))

    def send_frames(self, frames: bytes) -> None:
        """Send what ``message_frame`` made."""
        assert self._wire is not None
        self._wire.send(frames)

    async def register(self, registration: Registration) -> None:
        """Register and wait until it is committed. Raises Refused."""
        self._request_id += 1
        done = self._committed[self._request_id] = asyncio.get_running_loop().create_future()
        self.send(registration.message(self._request_id))
        await done

    def acknowledge(self) -> None:
        """Answer every delta that was not answered yet."""
        for nonce in self._owed:
            self.send_frames(_ack(nonce))
        self._owed.clear()

    async def beat(self, interval: float) -> None:
        """Send heartbeats until the stream ends."""
        while not self.ended:
            await asyncio.sleep(interval)
            self.send_frames(HEARTBEAT)

    def abort(self) -> None:
        """Drop the connection."""
        if self._wire is not None:
            self._wire.abort()

    def _on_message(self, raw: bytes) -> None:
        message = _parsed(raw)
        kind = message.WhichOneof("message")
        if kind == "delta":
            self._apply(_delta(raw))
        elif kind == "session":
            if message.session.state == mesh_pb2.Session.STATE_ATTACHED:
                self.handle, self.attached_at = message.session.handle, time.monotonic()
                self._settle()
            elif message.session.state == mesh_pb2.Session.STATE_LOST:
                self._fail("the session was lost")
        elif kind == "welcome":
            self._settle()
        elif kind == "committed":
            done = self._committed.pop(message.committed.request_id)
            if not done.done():
                done.set_result(None)
        elif kind == "error":
            self._fail(f"{message.error.code}: {message.error.message}")

    def _apply(self, delta: Delta) -> None:
        self.held.update(delta.held)
        if self._missing:
            self._missing -= delta.held.keys()
        self._owed.append(delta.nonce)
        if self.acks:
            self.acknowledge()
        self.records.append((delta.version, time.monotonic()))
        if not self._missing:
            self._settle()

    def _settle(self) -> None:
        """A stream stands when nothing that it waits for is missing; a resumed one also waits to be attached."""
        waits = self._missing or (self.handle and not self.attached_at)
        if self._settled is not None and not self._settled.done() and not waits:
            self._settled.set_result(None)

    def _on_closed(self, reason: str) -> None:
        self.ended = reason
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        waiting = [*self._committed.values(), *([self._settled] if self._settled else [])]
        self._committed.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(Refused(reason))
                future.exception()
