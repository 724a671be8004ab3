"""A call that finds its way by itself: told of the end of an attempt, it decides and begins the next one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import grpc

from trimtab.core.calling.call import Call
from trimtab.discovery import Callee
from trimtab.errors import NoEndpoints, TrimtabError
from trimtab.grpc.failures import Base, failure, refusal
from trimtab.grpc.meaning import CANCELLED, DEADLINE, Status, injected
from trimtab.grpc.outgoing import Outgoing

OK = grpc.StatusCode.OK
CANCELLED_HERE = Status(CANCELLED, "Locally cancelled by application!")
TOO_LATE = Status(DEADLINE, "no answer in time")


class Unattended(Outgoing):
    """What futures, streams and awaited calls have in common. ``trimtab`` is the trace of the call.

    ``streams``: the answer is a stream. ``failed``: the class of its errors.
    """

    streams = False
    failed: Base

    # A class's values, so that what a call leaves as it is costs it nothing.
    _inner: Any = (
        None  # gRPC's own call of the newest attempt; None while none is under way, and when the last one failed
    )
    _under_way = False  # nothing is decided yet of the newest attempt
    _begun = False  # the caller has a part of the answer
    _expired = False  # the attempt had its time
    _over = False
    _cancelled = False
    _error: Exception | None = None
    _substitute: Any = None
    _service = ""  # another one than the channel's, which is asked instead

    @property
    def trimtab(self) -> Call | None:
        """The trace; None as long as nothing is known of whom to call."""
        found: Call | None = self.__dict__.get("call")
        return found

    # What differs

    @abstractmethod
    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        """Do ``work`` in so many seconds, unless the call is cancelled before."""

    @abstractmethod
    def _await_endpoint(self, callee: Callee, error: NoEndpoints) -> None:
        """``_open`` it when there is somebody to call, or ``_fail`` when it is too late for that."""

    @abstractmethod
    def _follow(self, inner: Any, patience: float | None) -> None:
        """An attempt is under way: be told of its end, and end it after so many seconds without an answer."""

    @abstractmethod
    def _withdraw(self) -> None:
        """The attempt under way is none any more."""

    @abstractmethod
    def _finish(self, error: Exception | None = None) -> None:
        """The call is over."""

    @abstractmethod
    def _repeat(self, service: str) -> Any:
        """The same call to another service of the namespace."""

    @abstractmethod
    def _copied(self) -> bool:
        """Have it mirrored if it is to be, and raced if it may be. Returns whether it races: there is nothing else to do."""

    # What happens to a call

    def _open(self, callee: Callee, *, waited: bool = False) -> None:
        try:
            call = self.begin(callee)
        except NoEndpoints as error:
            if self.wait_for_ready and not waited:
                self._await_endpoint(callee, error)
            else:
                self._fail(error)
        except TrimtabError as error:
            self._fail(error)
        else:
            if not call.pipeline.plain and self._copied():
                return
            if call.wait:
                self._later(call.wait, self._after_wait)
            else:
                self._send(call.began)

    def _after_wait(self) -> None:
        pipeline = self.call.pipeline
        now = pipeline.now()
        pipeline.go_on(self.call, now)
        self._send(now)

    def _send(self, now: float) -> None:
        call = self.call
        if call.pipeline.observed:
            self.sending()
        if call.abort is not None:
            self._judge(injected(call.abort))
            return
        timeout, patience = call.timeout(now), None
        if self.streams:
            # What the policy says holds until the answer begins; what callers say, for all of it: so gRPC's users mean it.
            whole = None if self.deadline is None else self.deadline - now
            if timeout is not None and (whole is None or timeout < whole):
                patience = timeout
            timeout = whole
        try:
            inner = self.start(now, timeout)
        except Exception as error:
            self.mistaken(error)
            self._finish(error)
            raise
        self._follow(inner, patience)

    def _succeeded(self) -> None:
        """The attempt ended well."""
        call = self.call
        pipeline = call.pipeline
        if self._begun:
            pipeline.over(call, pipeline.now())
        else:
            pipeline.answered(call, pipeline.now(), True)
        self._finish()

    def _judge(self, status: Status) -> None:
        """The attempt ended badly."""
        call = self.call
        delay = self.ended(status, begun=self._begun)
        if delay is None:
            self._fail(failure(call, status, self.failed))
            return
        self._withdraw()
        if delay:
            self._later(delay, self._again)
        else:
            self._again()

    def _again(self) -> None:
        call = self.call
        pipeline = call.pipeline
        now = pipeline.now()
        try:
            pipeline.again(call, now)
        except TrimtabError as error:
            pipeline.over(call, now)
            error.__dict__["trimtab"] = call
            self._fail(error)
        else:
            self._send(now)

    def _fail(self, error: Exception) -> None:
        call: Call | None = error.__dict__.get("trimtab")
        if call is not None:
            self.call = call
        found = self.method.instead(self, call, error) if call is not None and not self._service else None
        if found is None:
            self._finish(refusal(error, self.failed))
        elif found.service:
            # Whatever comes of that call is what comes of this one.
            self._inner = other = self._repeat(found.service)
            other.add_done_callback(self._answered_by)
        else:
            self._withdraw()
            self._substitute = found.value
            self._finish()

    def _begin_answer(self) -> None:
        """Its caller is given the first part of the answer."""
        self._begun = True
        self.call.pipeline.answered(self.call, self.call.pipeline.now())

    def copy(self) -> Self:
        """The same call, not begun, with what its caller left it of its time: what the policy gave it was for this one."""
        now = self.call.pipeline.now()
        other = type(self)(
            self.subchannels,
            self.method,
            self.request,
            None if self.deadline is None else max(0.0, self.deadline - now),
            self.metadata,
            self.credentials,
            self.wait_for_ready,
            self.compression,
        )
        # It is made where nothing is known of the call being served.
        other.marks = self.marks
        return other

    def _answered_by(self, other: Unattended) -> None:
        if other._error is None:
            self.call.pipeline.substituted(other.call, other._service)
            self.call = other.call
        self._finish(other._error)

    # What may be asked of it at any time

    def done(self) -> bool:
        """It is over."""
        return self._over

    def cancelled(self) -> bool:
        """Its caller cancelled it."""
        return self._cancelled

    def time_remaining(self) -> float | None:
        """Seconds until its deadline."""
        call = self.trimtab
        if call is None:
            return self.timeout
        deadline = self.deadline if self.streams else call.deadline
        return None if deadline is None else max(0.0, deadline - call.pipeline.now())

    def _give_up(self) -> Exception:
        """Its caller cancels it. Returns the error to finish with."""
        if self._under_way:
            self._under_way = False
            self.ended(CANCELLED_HERE, begun=self._begun, cancelled=True)
        elif (call := self.trimtab) is not None:
            call.pipeline.over(call, call.pipeline.now())
        error = self.failed(CANCELLED_HERE)
        error.__dict__["trimtab"] = self.trimtab
        return error
