"""One client's stream: takes requests, answers them, and sends what is in its slot.

No task is woken for a message in either direction: what comes is handled where it is read, what is due is written where
it becomes due. Control messages go before deltas. Only requests that need the store wait, in a bounded queue that is
worked off in order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from trimtab.v1 import mesh_pb2, types_pb2

from controlplane.core.model import DEFAULT_NAMESPACE, Kind, Ref
from controlplane.core.quota import FloodLimit
from controlplane.core.resource import ResourceName
from controlplane.core.sessions import Session
from controlplane.core.subscription import Subscriptions
from controlplane.core.validation import check_instance_name
from controlplane.errors import Code, TrimtabError
from controlplane.rpc import convert, reports
from controlplane.rpc.failure import aborted
from controlplane.runtime.breakers import BreakerInfo
from controlplane.runtime.clients import ClientInfo, Load
from controlplane.runtime.reported import ReportFilter
from controlplane.runtime.traffic import Traffic
from controlplane.transport.call import Call

if TYPE_CHECKING:
    from controlplane.rpc.mesh import MeshService

log = logging.getLogger(__name__)

_REQUEST_QUEUE = 256
_HELLO_DEADLINE = 10.0
_SILENT_WINDOWS = 3
_STATE = mesh_pb2.Session
_NOBODY = types_pb2.Node()  # who has not said Hello
_NO_LOAD = Load()


class Stream:
    """A connected client."""

    __slots__ = (
        "_attaching",
        "_call",
        "_connected_at",
        "_flood",
        "_last_heard",
        "_leaving",
        "_load",
        "_loop",
        "_mail",
        "_namespace",
        "_node",
        "_over",
        "_reports",
        "_requests",
        "_service",
        "_session",
        "_worker",
        "_writing_since",
        "subscriptions",
    )

    def __init__(self, service: MeshService, call: Call) -> None:
        self._service = service
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._mail: list[bytes] = []
        self._requests: asyncio.Queue[tuple[int, Any]] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._attaching: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._node = _NOBODY
        self._namespace = DEFAULT_NAMESPACE
        self._load = _NO_LOAD
        self._reports: reports.Reports | None = None
        self._connected_at = time.time()
        self._flood = FloodLimit(service.limits.flood_rate, service.limits.flood_burst)
        self._leaving = False
        self._over = False
        self.subscriptions = Subscriptions()
        self._last_heard = self._loop.time()
        self._writing_since: float | None = None

    # -- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Serve the client until either side ends the stream."""
        self._call.receive(self._receive, self._drained, self._end)

    def go_away(self, reason: str, *, spread: float, deadline: float) -> None:
        """Ask the client to move; its session survives the end of this stream."""
        self._leaving = True
        away = mesh_pb2.GoAway(reason=reason, spread=convert.duration(spread), deadline=convert.duration(deadline))
        self._send(go_away=away)

    def cut(self, error: TrimtabError) -> None:
        """End the stream with ``error``, which its client is told should it ever read again."""
        self._end(error)

    def check(self, now: float) -> None:
        """Cut the client off when it does not say Hello, does not read, does not answer deltas, or is silent."""
        limits = self._service.limits
        stuck = now - limits.write_deadline
        oldest = self.subscriptions.oldest_unacknowledged
        if self._node is _NOBODY:
            if self._last_heard < now - _HELLO_DEADLINE:
                self.cut(TrimtabError(Code.STREAM_PROTOCOL, "no Hello came", hint="send Hello first"))
        elif self._writing_since is not None and self._writing_since < stuck:
            self._cut_off("read")
        elif oldest is not None and oldest < stuck:
            self._cut_off("acknowledge")
        elif self._last_heard < now - _SILENT_WINDOWS * limits.heartbeat_window:
            self._cut_off("speak")

    def wake(self) -> None:
        """Something may be in the slot or the mail: send it, unless the client has yet to take what was sent before."""
        if self._writing_since is not None or self._over:
            return
        try:
            while self._mail:
                if not self._put(self._mail.pop(0)):
                    return
            if self.subscriptions.sendable:
                self._push()
        except Exception:
            log.exception("%s cannot be written to", self._node.id)
            self._fail()

    def info(self, following: Collection[ResourceName] = ()) -> ClientInfo:
        """What operators are shown."""
        node, subscriptions = self._node, self.subscriptions
        return ClientInfo(
            node_id=node.id,
            name=node.name,
            namespace=self._namespace,
            sdk=node.sdk,
            host=node.host,
            pid=node.pid,
            zone=node.zone,
            peer=self._call.peer(),
            replica=self._service.replica,
            session=f"{self._session.lease:x}" if self._session else "",
            connected_at=self._connected_at,
            last_heartbeat_age=self._loop.time() - self._last_heard,
            subscriptions=len(subscriptions),
            acked=subscriptions.acked,
            behind=subscriptions.behind,
            nacks=tuple((str(name), reason) for name, reason in subscriptions.nacks.items()),
            load=self._load,
            followed=tuple((name, subscriptions.behind_on(name)) for name in following if name in subscriptions),
        )

    def breakers(self, wanted: ReportFilter) -> Iterator[BreakerInfo]:
        """The client's circuits, as it reported them last."""
        told = self._reports
        return iter(()) if told is None else told.breakers(wanted, self._reporter, self._loop.time())

    def traffic(self, wanted: ReportFilter) -> Iterator[Traffic]:
        """The client's calls to endpoints, as it reported them last."""
        told = self._reports
        return iter(()) if told is None else told.traffic(wanted, self._reporter, self._loop.time())

    @property
    def _reporter(self) -> reports.Reporter:
        return reports.Reporter(self._node.id, self._node.name, self._namespace, self._service.replica)

    def _end(self, error: TrimtabError | None = None, *, goodbye: bool = False) -> None:
        """End it soon, not now: whoever comes upon the end may be walking over all streams."""
        if not self._over:
            self._over = True
            self._loop.call_soon(self._leave, error, goodbye)

    def _leave(self, error: TrimtabError | None, goodbye: bool) -> None:
        service = self._service
        if self._worker is not None:
            self._worker.cancel()
        service.pusher.unfollow(self, self.subscriptions)
        service.followed -= len(self.subscriptions)
        service.left(self)
        session, self._session = self._session, None
        if session is not None and goodbye:
            self._worker = asyncio.create_task(self._part(session), name=f"goodbye of {self._node.id}")
            return
        if session is not None:
            self._let_go(session)
        self._close(error)

    def _close(self, error: TrimtabError | None) -> None:
        if error is None:
            self._call.complete()
        else:
            status = aborted(self._service.refusal(error))
            self._call.finish(status.code, status.details, status.metadata)

    def _cut_off(self, neglected: str) -> None:
        if not self._over:
            log.warning("cut off %s: it does not %s", self._node.id, neglected)
            self.cut(TrimtabError(Code.STREAM_STUCK, f"the client does not {neglected}", hint="open another stream"))

    def _let_go(self, session: Session) -> None:
        if self._leaving:
            self._service.keeper.release(session)
        else:
            self._service.keeper.broke(session)

    async def _part(self, session: Session) -> None:
        """End the session of a client that said goodbye before telling it so."""
        failure = None
        try:
            await self._service.keeper.end(session, "goodbye")
        except TrimtabError as error:
            log.warning("session %x said goodbye but could not be ended yet: %s", session.lease, error)
        except Exception:
            log.exception("session %x said goodbye and could not be ended", session.lease)
            failure = _failed()
        self._close(failure)

    # -- writing ----------------------------------------------------------------------------------------------------

    def _send(self, **field: object) -> None:
        self._post(convert.server_message(**field))

    def _post(self, message: bytes) -> None:
        self._mail.append(message)
        self.wake()

    def _push(self) -> None:
        service, subscriptions = self._service, self.subscriptions
        nonce, outgoing = subscriptions.take(service.view, self._loop.time())
        if subscriptions.pending:
            service.pusher.await_progress(self)
        if outgoing:
            delta = service.encoder.delta(nonce, outgoing)
            service.metrics.pushes.value += 1
            service.metrics.push_bytes.value += len(delta)
            self._put(delta)

    def _put(self, message: bytes) -> bool:
        """Whether the client took it all."""
        if self._call.send(message):
            return True
        self._writing_since = self._loop.time()
        return False

    def _drained(self) -> None:
        self._writing_since = None
        self.wake()

    def _fail(self) -> None:
        self.cut(_failed())

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A stream does not live on without the worker of its requests, or half resumed."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("the task %r failed", task.get_name(), exc_info=error)
            self._fail()

    # -- reading ----------------------------------------------------------------------------------------------------

    def _receive(self, raw: bytes | None) -> None:
        """A message came; None: the client has said its last."""
        if self._over:
            return
        if raw is None:
            self._end()
            return
        self._last_heard = self._loop.time()
        try:
            if not self._flood.admit(self._last_heard):
                raise TrimtabError(Code.FLOOD, "too many messages", hint="slow down; reconnect later")
            message = self._parse(raw)
            if self._node is _NOBODY:
                self._greet(message)
            else:
                self._handle_message(message)
        except TrimtabError as error:
            self.cut(error)
        except Exception:
            log.exception("a message of %s cannot be handled", self._node.id)
            self._fail()

    @staticmethod
    def _parse(raw: bytes) -> mesh_pb2.ClientMessage:
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
        self._post(self._service.welcome)
        self._subscribe(hello.subscriptions)
        if hello.resume:
            self._attaching = asyncio.create_task(self._attach(hello.resume), name=f"resume {self._node.id}")
            self._attaching.add_done_callback(self._ended)
        if self._service.going_away:
            self.go_away("shutting down", spread=limits.drain_spread, deadline=limits.drain_spread)

    def _handle_message(self, message: mesh_pb2.ClientMessage) -> None:
        kind = message.WhichOneof("message")
        match kind:
            case "heartbeat":
                self._beat(message.heartbeat)
            case "ack":
                self._acknowledge(message.ack.nonce)
            case "nack":
                self._refuse(message.nack)
            case "register" | "update" | "deregister":
                self._enqueue(kind, getattr(message, kind))
            case "subscribe":
                self._subscribe(message.subscribe.subscriptions)
            case "unsubscribe":
                self._unsubscribe(message.unsubscribe.names)
            case "report":
                if self._reports is None:
                    self._reports = reports.Reports()
                self._reports.keep(message.report, self._last_heard)
            case "goodbye":
                self._end(goodbye=True)
            case "hello":
                raise TrimtabError(Code.STREAM_PROTOCOL, "a second Hello", hint="open another stream")
            case _:
                # A newer client's message: the contract says to ignore what one does not know.
                log.debug("%s sent a message of an unknown kind", self._node.id)

    def _beat(self, heartbeat: mesh_pb2.Heartbeat) -> None:
        self._service.metrics.heartbeats.value += 1
        if heartbeat.HasField("load"):
            self._load = convert.load(heartbeat.load)
        if self._session is not None:
            self._service.keeper.heard(self._session)

    def _acknowledge(self, nonce: int) -> None:
        sent = self.subscriptions.ack(nonce)
        if self.subscriptions.pending:
            self.wake()
        if sent is not None:
            self._service.metrics.acknowledged.observe(self._last_heard - sent.changed_at)

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
        self._service.followed += len(fresh)
        self._service.pusher.follow(self, named)
        self.wake()

    def _unsubscribe(self, unwanted: Any) -> None:
        names = [convert.resource_name(item.kind, item.name, f"names[{i}]") for i, item in enumerate(unwanted)]
        gone = [name for name in names if self.subscriptions.unsubscribe(name)]
        self._service.pusher.unfollow(self, gone)
        self._service.followed -= len(gone)
        self.wake()  # what waits for the view to catch up waits on

    # -- session and requests ---------------------------------------------------------------------------------------

    def _lost(self) -> None:
        self._session = None
        self._send(session=_STATE(state=_STATE.STATE_LOST))

    async def _attach(self, handle: str) -> None:
        """Resume a session, however long the store is away; to the end of a try even for a client that has left.

        The store may give us the session when its answer is no longer waited for: then it is ours to end.
        """
        backoff = self._service.backoff()
        pending = False
        while not self._over:
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
        if self._over:  # granted while we were leaving
            self._let_go(session)
            return
        self._session = session
        self._send(session=_STATE(state=_STATE.STATE_ATTACHED, handle=handle, id=f"{session.lease:x}"))

    def _record(self) -> Any:
        return convert.session_record(self._node, replica=self._service.replica, ttl=self._service.limits.session_ttl)

    def _enqueue(self, kind: str, request: Any) -> None:
        if not request.request_id:
            raise TrimtabError(Code.STREAM_PROTOCOL, "a request without request_id", hint="number requests from 1")
        if self._requests is None:
            self._requests = asyncio.Queue(_REQUEST_QUEUE)
            self._worker = asyncio.create_task(self._serve(self._requests), name=f"requests of {self._node.id}")
            self._worker.add_done_callback(self._ended)
        self._requests.put_nowait((request.request_id, (kind, request)))
        if self._requests.full():
            self._call.hold()  # until the worker takes one

    async def _serve(self, requests: asyncio.Queue[tuple[int, Any]]) -> None:
        """Decide requests in the order in which they came."""
        while True:
            request_id, (kind, request) = await requests.get()
            self._call.resume()
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


def _failed() -> TrimtabError:
    return TrimtabError(Code.INTERNAL, "the server failed to serve this stream", hint="its log tells why")


def _holds_nothing(ref: Ref) -> TrimtabError:
    return TrimtabError(
        Code.INSTANCE_NOT_FOUND, f"this stream has no session, so it does not hold {ref}", hint="register it first"
    )
