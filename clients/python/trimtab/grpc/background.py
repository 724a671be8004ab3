"""Calls that go on while their caller does something else: futures, and streams of answers."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future as Waiting
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from trimtab.calling.heed import without
from trimtab.discovery import Callee, has_endpoint
from trimtab.errors import NoEndpoints
from trimtab.grpc.copies import mirror_blocking
from trimtab.grpc.failures import CallFailed
from trimtab.grpc.meaning import status_of
from trimtab.grpc.unattended import OK, TOO_LATE, Unattended

if TYPE_CHECKING:
    from trimtab.grpc.alarms import Alarm
    from trimtab.grpc.blocking import MeshChannel

_grpc: Any = grpc
logger = logging.getLogger("trimtab")


class Background(Unattended, _grpc.Call, _grpc.Future):  # type: ignore[misc]
    """A call over all its attempts, as gRPC shows one.

    gRPC tells the end of an attempt on a thread of its own. There it is decided what comes next, and the next attempt begun; a
    caller who was reading from the last one waits for that.
    """

    failed = CallFailed
    _alarm: Alarm | None = None
    _number = 0  # of the newest attempt

    def launch(self, channel: MeshChannel, service: str = "") -> Self:
        """Begin it. ``service``: another one than the channel's, which is asked instead."""
        self._channel = channel
        self._service = service
        self._callbacks: list[Callable[[], object]] = []
        # What changes when an attempt begins or ends changes under it.
        self._changed = threading.Condition()
        callee = channel.callee(service)
        channel.live.add(self)
        self._open(callee)
        return self

    # What happens to it

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self._alarm = self._channel.alarms.after(seconds, work)

    def _await_endpoint(self, callee: Callee, error: NoEndpoints) -> None:
        waiting: Waiting[None] = callee.when(has_endpoint)

        def too_late() -> None:
            if waiting.cancel():
                self._fail(error)

        def appeared(waited: Waiting[None]) -> None:
            self._quiet_alarm()
            if waited.cancelled() or self._over:
                return
            if waited.exception() is None:
                self._open(callee, waited=True)
            else:
                self._fail(error)

        if self.deadline is not None:
            self._later(self.deadline - self.began, too_late)
        waiting.add_done_callback(appeared)

    def _follow(self, inner: Any, patience: float | None) -> None:
        with self._changed:
            self._under_way = True
            cancelled = self._over
            if not cancelled:
                self._number += 1
                number = self._number
                self._inner, self._expired = inner, False
                self._changed.notify_all()
        if cancelled:
            inner.cancel()
            self._give_up()
            return
        if patience is not None:
            self._later(patience, functools.partial(self._expire, number))
        # Held weakly: who drops the call cancels it, as with gRPC's own.
        if not inner.add_callback(functools.partial(_tell, weakref.ref(self), number)):
            self._ended(number)

    def _expire(self, number: int) -> None:
        with self._changed:
            if number != self._number or self._begun or not self._under_way:
                return
            self._expired = True
            inner = self._inner
        inner.cancel()

    def _ended(self, number: int) -> None:
        """gRPC says that an attempt is over."""
        with self._changed:
            if number != self._number or not self._under_way:
                return
            inner = self._inner
            good = inner.code() is OK
            self._under_way = not good
        self._quiet_alarm()
        if good:
            if not self.streams:
                self.method.keep(self, inner.result())
            self._succeeded()
        else:
            # Not here: the rest of what there is to know may still have to be told on this very thread.
            self._channel.alarms.after(0.0, functools.partial(self._failed, number))

    def _failed(self, number: int) -> None:
        """An attempt is over that ended badly."""
        with self._changed:
            if number != self._number or not self._under_way:
                return
            self._under_way = False
            inner = self._inner
        self._judge(TOO_LATE if self._expired else status_of(inner))

    def _withdraw(self) -> None:
        with self._changed:
            self._inner = None

    def _finish(self, error: Exception | None = None) -> None:
        with self._changed:
            if self._over:
                return
            self._over, self._error = True, error
            if error is not None:
                self._inner = None
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        self._channel.forget(self)
        for callback in callbacks:
            try:
                callback()
            except Exception:
                # As gRPC does: its thread serves others, too.
                logger.exception("a callback of a call failed")

    def _copied(self) -> bool:
        # A future does not race: it would hold a thread. Whoever waits for an answer on a thread calls without one.
        if self.method.kind != "unary_unary":
            without(self.call.pipeline, "gRPC's streams", ("hedge", "mirror"))
            return False
        without(self.call.pipeline, "gRPC's futures", ("hedge",))
        if self.call.pipeline.mirroring is not None and not self._service:
            mirror_blocking(self, self._channel.callee)
        return False

    def _repeat(self, service: str) -> Background:
        return self.copy().launch(self._channel, service)

    def _quiet_alarm(self) -> None:
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.cancel()

    # What its caller does with it

    def cancel(self) -> bool:
        """End it. Returns False when it is over already."""
        with self._changed:
            if self._over:
                return False
            self._cancelled = True
            inner, self._inner = self._inner, None
            error = self._give_up()
        self._quiet_alarm()
        if inner is not None:
            inner.cancel()
        self._finish(error)
        return True

    def __del__(self) -> None:
        # Nobody is there any more to read the answer.
        if "_changed" in self.__dict__:
            self.cancel()

    def is_active(self) -> bool:
        """It is not over."""
        return not self._over

    def running(self) -> bool:
        """It is not over."""
        return not self._over

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have ``callback`` called at the end. Returns False when that was already."""
        with self._changed:
            if self._over:
                return False
            self._callbacks.append(callback)
        # Somebody waits for it, so it must not go because nobody else does.
        self._channel.hold(self)
        return True

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Have ``fn`` called with this call at the end."""
        if not self.add_callback(functools.partial(fn, self)):
            fn(self)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer. Raises what the call failed with, FutureCancelledError, FutureTimeoutError."""
        self._await_end(timeout)
        if self._error is not None:
            raise self._error
        return self._substitute if self._inner is None else self._inner.result()

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Wait for the end. Returns what the call failed with. Raises FutureCancelledError, FutureTimeoutError."""
        self._await_end(timeout)
        return self._error

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Wait for the end. Returns where the failure was raised, if it was."""
        self._await_end(timeout)
        return self._error.__traceback__ if self._error is not None else None

    def code(self) -> grpc.StatusCode:
        """Wait for the end. Returns the status code."""
        return self._told("code", OK)  # type: ignore[no-any-return]

    def details(self) -> str:
        """Wait for the end. Returns what is said of it."""
        return self._told("details", "")  # type: ignore[no-any-return]

    def trailing_metadata(self) -> Any:
        """Wait for the end. Returns what came after the answer."""
        return self._told("trailing_metadata", ())

    def debug_error_string(self) -> str:
        """Wait for the end. Returns what gRPC's core says of a failure."""
        return self._told("debug_error_string", "")  # type: ignore[no-any-return]

    def initial_metadata(self) -> Any:
        """Wait for what comes before the answer. Who has seen it is committed to this attempt."""
        while True:
            inner, number = self._attempt()
            if inner is None:
                return self._told("initial_metadata", ())
            found = inner.initial_metadata()
            if inner.is_active():
                self.call.once = True
                return found
            self._hear_end(number)
            if self._inner is inner:
                return found

    def _told(self, what: str, otherwise: Any) -> Any:
        with self._changed:
            self._changed.wait_for(self.done)
        source = self._error if self._error is not None else self._inner
        return getattr(source, what)() if isinstance(source, _grpc.Call) else otherwise

    def _await_end(self, timeout: float | None) -> None:
        with self._changed:
            if not self._changed.wait_for(self.done, timeout):
                raise grpc.FutureTimeoutError
        if self._cancelled:
            raise grpc.FutureCancelledError

    def _attempt(self) -> tuple[Any, int]:
        """The attempt under way, waiting for one; None when the call is over without any that succeeded."""
        with self._changed:
            self._changed.wait_for(lambda: self._inner is not None or self._over)
            return self._inner, self._number

    def _hear_end(self, number: int) -> None:
        """Wait until it is decided what comes after an attempt."""
        with self._changed:
            self._changed.wait_for(lambda: number != self._number or self._inner is None or self._over)


class FutureCall(Background):
    """A call with a single answer."""

    how = "future"


class StreamCall(Background):
    """A call with a stream of answers."""

    streams = True

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            inner, number = self._attempt()
            if inner is None:
                assert self._error is not None
                raise self._error
            try:
                message = next(inner)
            except StopIteration:
                self._hear_end(number)
                raise
            except grpc.RpcError:
                self._hear_end(number)
                continue
            if self._begun or self._takes(number):
                return message

    next = __next__

    def _takes(self, number: int) -> bool:
        """The first message has come. False: too late, another attempt is being made already."""
        with self._changed:
            if self._over:
                return True
            if number != self._number or self._inner is None:
                return False
            self._begin_answer()
        self._quiet_alarm()
        return True


def _tell(reference: weakref.ref[Background], number: int) -> None:
    background = reference()
    if background is not None:
        background._ended(number)
