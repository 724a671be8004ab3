"""One client's stream: reads requests, answers them, and writes what is in its slot.

Two coroutines: the reader is the RPC handler itself, the writer sleeps until it is woken. Control messages go before
deltas. Nothing here waits for the store while reading, but a bounded queue of requests that are decided in order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from trimtab.v1 import mesh_pb2, types_pb2

from controlplane.core.model import DEFAULT_NAMESPACE, Kind, Ref
from controlplane.core.quota import FloodLimit
from controlplane.core.sessions import Session
from controlplane.core.subscription import Subscriptions
from controlplane.core.validation import check_instance_name
from controlplane.errors import Code, TrimtabError
from controlplane.rpc import convert
from controlplane.runtime.clients import ClientInfo, Load

if TYPE_CHECKING:
    from controlplane.rpc.mesh import MeshService

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[bytes, bytes]
_HELLO_DEADLINE = 10.0
_REQUEST_QUEUE = 256
_FLUSH = 1.0
_STATE = mesh_pb2.Session


class Stream:
    """A connected client."""

    def __init__(self, service: MeshService, context: Context) -> None:
        self._service = service
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._mail: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._requests: asyncio.Queue[tuple[int, Any]] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._attaching: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._handle = ""
        self._node = types_pb2.Node()
        self._namespace = DEFAULT_NAMESPACE
        self._load = Load()
        self._connected_at = time.time()
        self._flood = FloodLimit(service.limits.flood_rate, service.limits.flood_burst)
        self._leaving = False
        self._closing = False
        self._reader: asyncio.Task[Any] | None = None
        self._cut: TrimtabError | None = None
        self.subscriptions = Subscriptions()
        self.last_heard = self._loop.time()
        self.writing_since: float | None = None

    # -- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the client until either side ends the stream. Raises TrimtabError to end it with a status."""
        try:
            hello = await asyncio.wait_for(self._read(), _HELLO_DEADLINE)
        except TimeoutError:
            raise TrimtabError(Code.STREAM_PROTOCOL, "no Hello came", hint="send Hello first") from None
        if hello is None:
            return
        self._greet(hello)
        self._reader = asyncio.current_task()
        writer = asyncio.create_task(self._write(), name=f"write to {self._node.id}")
        writer.add_done_callback(self._ended)
        try:
            while (message := await self._read()) is not None:
                if not self._flood.admit(self.last_heard):
                    raise TrimtabError(Code.FLOOD, "too many messages", hint="slow down; reconnect later")
                if await self._handle_message(message):
                    return
        except asyncio.CancelledError:
            if self._cut is None or self._reader is None:
                raise
            self._reader.uncancel()
            raise self._cut from None
        finally:
            self._reader = None
            await self._leave(writer)

    def go_away(self, reason: str, *, spread: float, deadline: float) -> None:
        """Ask the client to move; its session survives the end of this stream."""
        self._leaving = True
        away = mesh_pb2.GoAway(reason=reason, spread=convert.duration(spread), deadline=convert.duration(deadline))
        self._send(go_away=away)

    def cut(self, error: TrimtabError) -> None:
        """End the stream from outside, with ``error``, which its client is told should it ever read again."""
        if self._cut is None and self._reader is not None:
            self._cut = error
            self._reader.cancel()

    def wake(self) -> None:
        """Something may be in the slot or the mail."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def node_id(self) -> str:
        """How the client calls itself; empty before its Hello."""
        return self._node.id

    def info(self) -> ClientInfo:
        """What operators are shown."""
        node = self._node
        return ClientInfo(
            node_id=node.id,
            name=node.name,
            namespace=self._namespace,
            sdk=node.sdk,
            host=node.host,
            pid=node.pid,
            zone=node.zone,
            peer=self._context.peer(),
            replica=self._service.replica,
            session=f"{self._session.lease:x}" if self._session else "",
            connected_at=self._connected_at,
            last_heartbeat_age=self._loop.time() - self.last_heard,
            subscriptions=len(self.subscriptions),
            acked=self.subscriptions.acked,
            behind=self.subscriptions.behind,
            nacks=tuple((str(name), reason) for name, reason in self.subscriptions.nacks.items()),
            load=self._load,
        )

    async def _leave(self, writer: asyncio.Task[None]) -> None:
        session, self._session = self._session, None
        if session is not None:
            if self._leaving:
                self._service.keeper.release(session)
            else:
                self._service.keeper.broke(session)
        self._service.pusher.unfollow(self, self.subscriptions)
        self._service.metrics.subscriptions.dec(len(self.subscriptions))
        tasks = [task for task in (self._worker, self._attaching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # gRPC refuses the final status while the first write is on its way, so the writer is let finish.
        self._closing = True
        self.wake()
        await asyncio.wait([writer], timeout=_FLUSH)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        if self._session is not None:  # granted while we were leaving
            self._service.keeper.broke(self._session)

    # -- writing ----------------------------------------------------------------------------------------------------

    def _send(self, **field: object) -> None:
        self._mail.append(convert.server_message(**field))
        self.wake()

    async def _write(self) -> None:
        metrics, encoder, view = self._service.metrics, self._service.encoder, self._service.view
        subscriptions, write = self.subscriptions, self._context.write
        while True:
            while self._mail:
                self.writing_since = self._loop.time()
                await write(self._mail.popleft())
                self.writing_since = None
            if self._closing:
                return
            if subscriptions.sendable:
                nonce, outgoing = subscriptions.take(view, self._loop.time())
                if outgoing:
                    self._mail.append(encoder.delta(nonce, outgoing))
                    metrics.pushes.inc()
                    metrics.push_bytes.inc(len(self._mail[0]))
                    continue
                if subscriptions.pending:
                    self._service.pusher.await_progress(self)
            self._waiter = self._loop.create_future()
            await self._waiter
            self._waiter = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Neither half of a stream lives on without the other."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, grpc.aio.BaseError):
            log.debug("%s left while it was written to: %s", self._node.id, error)
        elif error is not None:
            log.error("the task %r failed", task.get_name(), exc_info=error)
            self.cut(TrimtabError(Code.INTERNAL, "the server failed to serve this stream", hint="its log tells why"))

    # -- reading ----------------------------------------------------------------------------------------------------

    async def _read(self) -> mesh_pb2.ClientMessage | None:
        raw = await self._context.read()
        if not isinstance(raw, bytes):  # grpc.aio.EOF
            return None
        self.last_heard = self._loop.time()
        try:
            return mesh_pb2.ClientMessage.FromString(raw)
        except DecodeError:
            raise convert.malformed("a ClientMessage") from None

    def _greet(self, message: mesh_pb2.ClientMessage) -> None:
        if message.WhichOneof("message") != "hello":
            raise TrimtabError(Code.STREAM_PROTOCOL, "the first message was not Hello", hint="send Hello first")
        hello, limits = message.hello, self._service.limits
        convert.check_node(hello.node)
        self._node = hello.node
        self._namespace = hello.node.namespace or DEFAULT_NAMESPACE
        self._send(welcome=self._service.welcome)
        self._subscribe(hello.subscriptions)
        if hello.resume:
            self._attaching = asyncio.create_task(self._attach(hello.resume), name=f"resume {self._node.id}")
        if self._service.going_away:
            self.go_away("shutting down", spread=limits.drain_spread, deadline=limits.drain_spread)

    async def _handle_message(self, message: mesh_pb2.ClientMessage) -> bool:
        """Act on one message; True ends the stream."""
        kind = message.WhichOneof("message")
        match kind:
            case "heartbeat":
                self._beat(message.heartbeat)
            case "ack":
                self._acknowledge(message.ack.nonce)
            case "nack":
                self._refuse(message.nack)
            case "register" | "update" | "deregister":
                await self._enqueue(kind, getattr(message, kind))
            case "subscribe":
                self._subscribe(message.subscribe.subscriptions)
            case "unsubscribe":
                self._unsubscribe(message.unsubscribe.names)
            case "goodbye":
                await self._goodbye(message.goodbye.reason)
                return True
            case "hello":
                raise TrimtabError(Code.STREAM_PROTOCOL, "a second Hello", hint="open another stream")
            case _:
                # A newer client's message: the contract says to ignore what one does not know.
                log.debug("%s sent a message of an unknown kind", self._node.id)
        return False

    def _beat(self, heartbeat: mesh_pb2.Heartbeat) -> None:
        self._service.metrics.heartbeats.inc()
        if heartbeat.HasField("load"):
            self._load = convert.load(heartbeat.load)
        if self._session is not None:
            self._service.keeper.heard(self._session)

    def _acknowledge(self, nonce: int) -> None:
        sent = self.subscriptions.ack(nonce)
        if self.subscriptions.sendable:
            self.wake()
        if sent is not None:
            self._service.metrics.acknowledged.observe(self.last_heard - sent.changed_at)

    def _refuse(self, nack: mesh_pb2.Nack) -> None:
        refusals = [
            (convert.resource_name(refusal.kind, refusal.name, f"refusals[{index}]"), refusal.reason, refusal.resend)
            for index, refusal in enumerate(nack.refusals)
        ]
        for name, reason, resend in refusals:
            self._service.metrics.nacks.inc()
            log.log(
                logging.DEBUG if resend else logging.WARNING, "%s refused %s: %s", self._node.id, name, reason[:200]
            )
        self.subscriptions.nack(nack.nonce, refusals)
        self.wake()

    # -- subscriptions ----------------------------------------------------------------------------------------------

    def _subscribe(self, wanted: Any) -> None:
        named = {
            convert.resource_name(item.kind, item.name, f"subscriptions[{index}]"): item
            for index, item in enumerate(wanted)
        }
        fresh = [name for name in named if name not in self.subscriptions]
        total, limit = len(self.subscriptions) + len(fresh), self._service.limits.max_subscriptions
        if total > limit:
            raise TrimtabError(
                Code.TOO_MANY_SUBSCRIPTIONS,
                f"{total} subscriptions are more than {limit}",
                hint="unsubscribe from what is not called, or raise max_subscriptions",
            )
        for name, item in named.items():
            self.subscriptions.subscribe(name, item.version, item.digest)
        self._service.metrics.subscriptions.inc(len(fresh))
        self._service.pusher.follow(self, named)
        self.wake()

    def _unsubscribe(self, unwanted: Any) -> None:
        names = [convert.resource_name(item.kind, item.name, f"names[{i}]") for i, item in enumerate(unwanted)]
        gone = [name for name in names if self.subscriptions.unsubscribe(name)]
        self._service.metrics.subscriptions.dec(len(gone))
        self._service.pusher.unfollow(self, gone)
        self.wake()  # what waits for the view to catch up waits on

    # -- session and requests ---------------------------------------------------------------------------------------

    def _lost(self) -> None:
        self._session, self._handle = None, ""
        self._send(session=_STATE(state=_STATE.STATE_LOST))

    async def _attach(self, handle: str) -> None:
        """Resume a session, however long the store is away."""
        backoff = self._service.backoff()
        pending = False
        while True:
            try:
                session = await self._service.keeper.resume(handle, self._record(), self._lost)
            except TrimtabError as error:
                if error.code in {Code.SESSION_LOST, Code.SESSION_INVALID}:
                    self._lost()
                    return
                if not pending:
                    self._send(session=_STATE(state=_STATE.STATE_PENDING))
                    pending = True
                await backoff.wait()
                continue
            self._adopt(session, handle)
            return

    def _adopt(self, session: Session, handle: str) -> None:
        self._session, self._handle = session, handle
        self._send(session=_STATE(state=_STATE.STATE_ATTACHED, handle=handle, id=f"{session.lease:x}"))

    def _record(self) -> Any:
        return convert.session_record(self._node, replica=self._service.replica, ttl=self._service.limits.session_ttl)

    async def _enqueue(self, kind: str, request: Any) -> None:
        if not request.request_id:
            raise TrimtabError(Code.STREAM_PROTOCOL, "a request without request_id", hint="number requests from 1")
        if self._requests is None:
            self._requests = asyncio.Queue(_REQUEST_QUEUE)
            self._worker = asyncio.create_task(self._serve(self._requests), name=f"requests of {self._node.id}")
            self._worker.add_done_callback(self._ended)
        await self._requests.put((request.request_id, (kind, request)))

    async def _serve(self, requests: asyncio.Queue[tuple[int, Any]]) -> None:
        """Decide requests in the order in which they came."""
        while True:
            request_id, (kind, request) = await requests.get()
            try:
                instance_id, revision = await self._decide(kind, request)
            except TrimtabError as error:
                self._service.metrics.refused.labels(error.code.code).inc()
                self._send(error=convert.error(error, request_id))
                continue
            done = mesh_pb2.Committed(request_id=request_id, instance_id=instance_id, revision=revision)
            self._send(committed=done)

    async def _decide(self, kind: str, request: Any) -> tuple[str, int]:
        operations = self._service.operations
        if kind == "register":
            instance = convert.instance(request.instance, self._namespace)
            session = await self._ensure_session()
            return instance.id, await operations.register(instance, session=session.ref, lease=session.lease)
        if self._attaching is not None:
            await self._attaching
        mine = self._session
        if kind == "update":
            instance = convert.instance(request.instance, self._namespace)
            if mine is None:
                raise _holds_nothing(instance.ref)
            return instance.id, await operations.update(instance, session=mine.ref, lease=mine.lease)
        namespace = request.namespace or self._namespace
        check_instance_name(namespace, request.service, request.id)
        ref = Ref(Kind.INSTANCE, (namespace, request.service, request.id))
        if mine is None:
            raise _holds_nothing(ref)
        return request.id, await operations.deregister(ref, session=mine.ref, lease=mine.lease)

    async def _ensure_session(self) -> Session:
        if self._attaching is not None:
            await self._attaching
            self._attaching = None
        if self._session is None:
            self._adopt(*await self._service.keeper.open(self._record(), self._lost))
        assert self._session is not None
        return self._session

    async def _goodbye(self, reason: str) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        try:
            await self._service.keeper.end(session, "goodbye")
        except TrimtabError as error:
            log.warning("session %x said goodbye but could not be ended yet: %s", session.lease, error)


def _holds_nothing(ref: Ref) -> TrimtabError:
    return TrimtabError(
        Code.INSTANCE_NOT_FOUND, f"this stream has no session, so it does not hold {ref}", hint="register it first"
    )
