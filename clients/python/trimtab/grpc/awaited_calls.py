"""Calls of asyncio, over all their attempts."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import grpc

from trimtab.calling.context import UNMARKED
from trimtab.calling.context import deadline as inherited
from trimtab.calling.drive import block, run
from trimtab.calling.heed import without
from trimtab.calling.mirror import mirror
from trimtab.discovery import Callee, has_endpoint
from trimtab.errors import MeshClosed, NoEndpoints, TrimtabError
from trimtab.grpc.copies import AwaitedCopies, CopyFailed
from trimtab.grpc.failures import AioCallFailed, failure
from trimtab.grpc.meaning import NO_METADATA, Status
from trimtab.grpc.unattended import OK, TOO_LATE, Unattended

if TYPE_CHECKING:
    from trimtab.grpc.awaiting import AsyncMeshChannel

_aio: Any = grpc.aio
_SUBSTITUTED = AioCallFailed(Status(OK))
logger = logging.getLogger("trimtab")


class Awaited(Unattended, _aio.Call):  # type: ignore[misc]
    """What the calls of all four kinds have in common.

    gRPC tells the end of an attempt as soon as there is a status, on the loop. There it is decided what comes next. A call that
    goes well at once has no task of ours; the ``_preparation`` of another attempt has one.
    """

    failed = AioCallFailed
    _preparation: asyncio.Task[None] | None = None
    _alarm: asyncio.TimerHandle | None = None
    _awaited = (
        False  # somebody awaits the answer, and will say of the attempt how it ended: asking its status costs more
    )
    _spent: Any = None  # the attempt that had its time: gRPC lets its reader believe that he was cancelled
    _callbacks: list[Callable[[Any], object]] | None = None

    def launch(self, channel: AsyncMeshChannel, service: str = "") -> Self:
        """Begin it. ``service``: another one than the channel's, which is asked instead."""
        self._channel = channel
        if service:
            self._service = service
        callee = channel.known(service or channel.service, channel.namespace)
        if callee is None:
            self._prepare(self._discover())
        else:
            self._open(callee)
        return self

    # What happens to it

    async def _discover(self) -> None:
        self._open(await self._channel.callee(self._service))

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        async def wait() -> None:
            await self.call.pipeline.clock.pause(seconds)
            work()

        self._prepare(wait())

    def _await_endpoint(self, callee: Callee, error: NoEndpoints) -> None:
        async def wait() -> None:
            timeout = None if self.deadline is None else self.deadline - self.began
            try:
                await asyncio.wait_for(asyncio.wrap_future(callee.when(has_endpoint)), timeout)
            except (TimeoutError, MeshClosed):
                self._fail(error)
            else:
                self._open(callee, waited=True)

        self._prepare(wait())

    def _prepare(self, work: Coroutine[Any, Any, None]) -> None:
        """Have ``work`` lead to the next attempt."""
        task = self._preparation = asyncio.get_running_loop().create_task(work)
        self._channel.preparations.add(task)
        task.add_done_callback(self._prepared)

    def _prepared(self, task: asyncio.Task[None]) -> None:
        self._channel.preparations.discard(task)
        if task.cancelled():
            self.cancel()
        elif isinstance(error := task.exception(), Exception):
            self._finish(error)

    def _follow(self, inner: Any, patience: float | None) -> None:
        self._inner, self._under_way = inner, True
        if self.streams:
            # Held weakly: who drops the call cancels it.
            inner.add_done_callback(partial(_tell, weakref.ref(self)))
            if patience is not None:
                self._alarm = asyncio.get_running_loop().call_later(patience, self._expire, inner)
        else:
            inner.add_done_callback(self._ended)

    def _expire(self, inner: Any) -> None:
        if inner is self._inner and not self._begun and not self._over:
            self._expired, self._spent = True, inner
            inner.cancel()

    def _ended(self, inner: Any) -> None:
        """gRPC says that an attempt is over."""
        if inner is not self._inner or not self._under_way or self._awaited:
            return
        self._under_way = False
        if self._alarm is not None:
            self._alarm.cancel()
        try:
            code = block(inner.code())
        except Exception as error:
            # Raised by an interceptor.
            self.mistaken(error)
            self._finish(error)
            return
        if code is OK:
            self._succeeded()
            return
        expired, self._expired = self._expired, False
        self._judge(TOO_LATE if expired else _status(inner, code))

    def _withdraw(self) -> None:
        self._inner = None

    def _finish(self, error: Exception | None = None) -> None:
        if self._over:
            return
        self._over, self._error = True, error
        if error is not None:
            self._inner = None
        if self._callbacks is not None:
            self._call_back()

    def _call_back(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback(self)
            except Exception:
                # It is called from within gRPC, which has other calls to care for.
                logger.exception("a callback of a call failed")

    def _copied(self) -> bool:
        pipeline = self.call.pipeline
        if self.method.kind != "unary_unary":
            without(pipeline, "gRPC's streams", ("hedge", "mirror"))
            return False
        if pipeline.mirroring is not None and not self._service:
            copies = AwaitedCopies(self)
            mirror(pipeline.mirroring, pipeline.crew, copies, partial(copies.elsewhere, self._channel.callee))
        if not self.races():
            return False
        self._prepare(self._race())
        return True

    async def _race(self) -> None:
        """Have copies race. The one that wins is then the attempt that succeeded."""
        call = self.call
        try:
            inner = await run(call.pipeline, call, AwaitedCopies(self))
        except CopyFailed as error:
            self._fail(failure(call, error.status, self.failed))
        else:
            call.pipeline.over(call, call.pipeline.now())
            self._inner = inner
            self._finish()

    def _repeat(self, service: str) -> Awaited:
        return self.copy().launch(self._channel, service)

    # What its caller does with it

    def cancel(self) -> bool:
        """End it. Returns False when it is over already."""
        if self._over:
            return False
        self._cancelled = True
        if self._preparation is not None:
            self._preparation.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.cancel()
        self._finish(self._give_up())
        return True

    def _cancelled_by_task(self) -> None:
        """The task that waits was cancelled, and gRPC has cancelled the attempt: that may have been the end of the call."""
        if not self.cancel():
            self._cancelled = True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have ``callback`` called with this call at the end."""
        if self._over:
            callback(self)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    async def initial_metadata(self) -> Any:
        """Wait for what comes before the answer. Who has seen it is committed to this attempt."""
        while (inner := await self._attempt()) is not None:
            found = await inner.initial_metadata()
            if inner is self._inner:
                if not self._over:
                    self.call.once = True
                return found
        return self._failure.initial_metadata()

    async def trailing_metadata(self) -> Any:
        """Wait for the end. Returns what came after the answer."""
        inner = await self._end()
        return self._failure.trailing_metadata() if inner is None else await inner.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """Wait for the end. Returns the status code."""
        inner = await self._end()
        return self._failure.code() if inner is None else OK

    async def details(self) -> str:
        """Wait for the end. Returns what is said of it."""
        inner = await self._end()
        return self._failure.details() if inner is None else await inner.details()

    async def debug_error_string(self) -> str:
        """Wait for the end. Returns what gRPC's core says of a failure."""
        inner = await self._end()
        return self._failure.debug_error_string() if inner is None else await inner.debug_error_string()

    @property
    def _failure(self) -> AioCallFailed:
        """What is to be told of a call that no attempt succeeded of."""
        error = self._error
        if error is None:
            return _SUBSTITUTED
        return error if isinstance(error, AioCallFailed) else AioCallFailed(Status(grpc.StatusCode.UNKNOWN, str(error)))

    async def wait_for_connection(self) -> None:
        """Wait until an attempt has a connection. Raises what the call failed with."""
        while (inner := await self._attempt()) is not None:
            try:
                await inner.wait_for_connection()
            except grpc.aio.AioRpcError as error:
                self._hear_end(inner, error)
            if inner is self._inner:
                return
        self._raise()

    async def _attempt(self) -> Any:
        """The attempt under way, waiting for one; None when the call is over without any that succeeded."""
        while self._inner is None and not self._over:
            assert self._preparation is not None
            try:
                await asyncio.wait((self._preparation,))
                await asyncio.sleep(0)  # for what follows from it
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self._inner

    async def _end(self) -> Any:
        """Wait for the end. Returns the attempt that succeeded, None when there was none."""
        while not self._over:
            inner = await self._attempt()
            if inner is not None:
                await inner.code()
                # Another one may await the answer: it is for him to say that the call is over.
                await asyncio.sleep(0)
        return self._inner

    def _hear_end(self, inner: Any, error: Exception) -> None:
        """An attempt failed. gRPC has told so already, unless it failed in an interceptor."""
        self._ended(inner)
        if inner is self._inner and not self._over:
            self._finish(error)

    def _raise(self) -> None:
        """What a call fails with that is over."""
        if self._cancelled:
            raise asyncio.CancelledError
        if self._error is not None:
            raise self._error


class _SingleAnswer(Awaited):
    """A call with one answer."""

    def __await__(self) -> Generator[Any, None, Any]:
        while True:
            inner = self._inner
            if inner is None:
                if not self._over:
                    yield from self._attempt().__await__()
                    continue
                self._raise()
                return self._substitute
            self._awaited = True
            try:
                answer = yield from inner.__await__()
            except asyncio.CancelledError:
                self._awaited = False
                self._cancelled_by_task()
                raise
            except GeneratorExit:
                # Nobody waits any more; what was to be said of the end by who did is said now.
                self._awaited = False
                if inner.done():
                    self._ended(inner)
                raise
            except Exception as error:
                self._awaited = False
                self._hear_end(inner, error)
                continue
            self._awaited = False
            if self._under_way and inner is self._inner:
                self._under_way = False
                pipeline = self.call.pipeline
                pipeline.answered(self.call, pipeline.now(), True)
                self._over = True
                if self._callbacks is not None:
                    self._call_back()
            if self.call.pipeline.fallbacks is not None:
                self.method.keep(self, answer)
            return answer


class _StreamedAnswer(Awaited):
    """A call with a stream of answers."""

    streams = True
    _reader: Any = None
    _read_from: Any = None

    def __del__(self) -> None:
        # Nobody is there any more to read the answer.
        if not self._over and "_channel" in self.__dict__:
            self.cancel()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is _aio.EOF:
            raise StopAsyncIteration
        return message

    async def read(self) -> Any:
        """The next message, ``_aio.EOF`` at the end. Raises what the call failed with."""
        while True:
            inner = self._inner
            if inner is None:
                inner = await self._attempt()
                if inner is None:
                    self._raise()
            if inner is not self._read_from:
                self._read_from, self._reader = inner, aiter(inner)
            try:
                message = await anext(self._reader)
            except StopAsyncIteration:
                if self._cancelled:
                    self._raise()
                return _aio.EOF
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if inner is self._spent and task is not None and not task.cancelling():
                    continue
                self._cancelled_by_task()
                raise
            except grpc.aio.AioRpcError as error:
                self._hear_end(inner, error)
                continue
            if not self._begun and not self._over:
                if inner is not self._inner:
                    continue
                self._begin_answer()
                if self._alarm is not None:
                    self._alarm.cancel()
            return message


class _StreamedRequests(Awaited):
    """A call that its caller writes requests to, when there is no iterable of them."""

    async def write(self, request: Any) -> None:
        """Send a request. Raises what the call failed with."""
        while (inner := await self._attempt()) is not None:
            try:
                await inner.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                if inner is self._inner:
                    self._hear_end(inner, error)
                    if inner is self._inner:
                        raise
                continue
            self.call.once = True
            return
        self._raise()

    async def done_writing(self) -> None:
        """Say that no further requests come."""
        while (inner := await self._attempt()) is not None:
            await inner.done_writing()
            if inner is self._inner:
                return


class UnaryUnaryCall(_SingleAnswer, _aio.UnaryUnaryCall):  # type: ignore[misc]
    """One request, one answer."""

    def launch(self, channel: AsyncMeshChannel, service: str = "") -> Self:
        """Begin it, as all are, or by the short way that blocking calls have too."""
        method = self.method
        kept = method.kept
        if kept is None or kept.pipeline.retired:
            kept = method.keep_pipeline(channel.known(channel.service, channel.namespace))
        if kept is None or service or self.wait_for_ready or self.marks is not UNMARKED:
            return super().launch(channel, service)
        self._channel = channel
        pipeline, callee = kept
        now, deadline, timeout = pipeline.now(), inherited.get(), self.timeout
        if timeout is not None and (deadline is None or now + timeout < deadline):
            deadline = now + timeout
        self.callee, self.began, self.deadline = callee, now, deadline
        try:
            call = self.call = pipeline.begin(now, method.name, deadline)
        except TrimtabError as error:
            self._fail(error)
            return self
        try:
            subchannels = self.subchannels
            sub = subchannels.to(call.endpoint, call.tally, callee, now)  # type: ignore[arg-type]  # it was let in
            stub = sub.stubs.get(method) or subchannels.stub(sub, method)
            self._inner = inner = stub(
                self.request,
                timeout=None if call.until is None else call.until - now,
                metadata=self.metadata or (None if sub.intercepted else NO_METADATA),
                credentials=self.credentials,
                compression=self.compression,
            )
        except Exception as error:
            self.mistaken(error)
            self._finish(error)
            raise
        self._under_way = True
        inner.add_done_callback(self._ended)
        return self


class UnaryStreamCall(_StreamedAnswer, _aio.UnaryStreamCall):  # type: ignore[misc]
    """One request, a stream of answers."""


class StreamUnaryCall(_StreamedRequests, _SingleAnswer, _aio.StreamUnaryCall):  # type: ignore[misc]
    """A stream of requests, one answer."""


class StreamStreamCall(_StreamedRequests, _StreamedAnswer, _aio.StreamStreamCall):  # type: ignore[misc]
    """A stream of requests, a stream of answers."""


def _status(inner: Any, code: grpc.StatusCode) -> Status:
    """The status of an attempt that is over: nothing of this suspends."""
    return Status(
        code,
        block(inner.details()) or "",
        tuple(block(inner.initial_metadata()) or ()),
        tuple(block(inner.trailing_metadata()) or ()),
    )


def _tell(reference: weakref.ref[Awaited], inner: Any) -> None:
    awaited = reference()
    if awaited is not None:
        awaited._ended(inner)
