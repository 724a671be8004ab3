"""Errors of calls over gRPC: those of the mesh are gRPC's own, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import grpc

from trimtab.core.calling.call import Call
from trimtab.errors import (
    CircuitOpen,
    DeadlineExceeded,
    NoEndpoints,
    Overloaded,
    RateLimited,
    RetriesExhausted,
    TrimtabError,
)
from trimtab.grpc.meaning import DEADLINE, UNAVAILABLE, Status
from trimtab.http.meaning import adopt, exhausted, too_late

_grpc: Any = grpc
_CODES: dict[type[Exception], grpc.StatusCode] = {
    NoEndpoints: UNAVAILABLE,
    CircuitOpen: UNAVAILABLE,
    RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceeded: DEADLINE,
}
# gRPC counts by the wall clock and in milliseconds: its deadline may come a little before ours.
_EARLY = 0.01


class Code(str):
    """The code of an error, for both who may ask: ``error.code`` is the mesh's, ``error.code()`` is gRPC's."""

    __slots__ = ("_status",)
    _status: grpc.StatusCode

    def __new__(cls, text: str, status: grpc.StatusCode) -> Code:
        """``text`` is the stable code of a TrimtabError."""
        code = super().__new__(cls, text)
        code._status = status
        return code

    def __call__(self) -> grpc.StatusCode:
        """What gRPC's users ask for."""
        return self._status


class Over(_grpc.Call, _grpc.Future):  # type: ignore[misc]
    """A call that is at its end, as gRPC shows one. ``answer`` is what it came to."""

    status: Status
    answer: Any = None

    def code(self) -> grpc.StatusCode:
        """The status code."""
        return self.status.code

    def details(self) -> str:
        """What is said of it."""
        return self.status.details

    def initial_metadata(self) -> Sequence[tuple[str, Any]]:
        """What the callee sent before its answer."""
        return self.status.initial

    def trailing_metadata(self) -> Sequence[tuple[str, Any]]:
        """What the callee sent after its answer."""
        return self.status.trailing

    def debug_error_string(self) -> str:
        """What gRPC's own core says."""
        return self.status.debug

    def is_active(self) -> bool:
        """No more."""
        return False

    def time_remaining(self) -> float | None:
        """Nobody counts any more."""
        return None

    def cancel(self) -> bool:
        """Too late."""
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Too late."""
        return False

    def cancelled(self) -> bool:
        """It came to an end of its own."""
        return False

    def running(self) -> bool:
        """No more."""
        return False

    def done(self) -> bool:
        """It is."""
        return True

    def result(self, timeout: float | None = None) -> Any:
        """The answer. Raises the failure."""
        if isinstance(self, BaseException):
            raise self
        return self.answer

    def exception(self, timeout: float | None = None) -> Any:
        """The failure."""
        return self if isinstance(self, BaseException) else None

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Where the failure was raised."""
        return self.__traceback__ if isinstance(self, BaseException) else None

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Called at once."""
        fn(self)


class Substituted(Over):
    """The call whose answer was not the callee's."""

    def __init__(self, answer: Any, call: Call) -> None:
        self.status, self.answer, self.trimtab = Status(grpc.StatusCode.OK), answer, call


class CallFailed(Over, _grpc.RpcError):  # type: ignore[misc]
    """A call failed: what blocking calls raise. ``trimtab`` is the trace of the call."""

    def __init__(self, status: Status) -> None:
        super().__init__(str(status))
        self.status = status

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


class AioCallFailed(_grpc.aio.AioRpcError):  # type: ignore[misc]
    """A call failed: what awaited calls raise. ``trimtab`` is the trace of the call."""

    status: Status

    def __init__(self, status: Status) -> None:
        super().__init__(
            status.code,
            grpc.aio.Metadata(*status.initial),
            grpc.aio.Metadata(*status.trailing),
            status.details,
            status.debug,
        )
        self.status = status

    # An error of the mesh is made one of these without calling __init__.

    def code(self) -> grpc.StatusCode:
        """The status code."""
        return self.status.code

    def details(self) -> str:
        """What is said of it."""
        return self.status.details

    def initial_metadata(self) -> Any:
        """What the callee sent before its answer."""
        return grpc.aio.Metadata(*self.status.initial)

    def trailing_metadata(self) -> Any:
        """What the callee sent after its answer."""
        return grpc.aio.Metadata(*self.status.trailing)

    def debug_error_string(self) -> str:
        """What gRPC's own core says."""
        return self.status.debug

    def __str__(self) -> str:
        return str(self.status)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __reduce__(self) -> Any:
        return Exception.__reduce__(self)


Base = type[CallFailed] | type[AioCallFailed]


def failure(call: Call, status: Status, base: Base, cause: Exception | None = None) -> Exception:
    """What a call is told to have failed with whose last attempt ended with ``status``; ``cause`` is gRPC's own error."""
    now = call.pipeline.now()
    told: TrimtabError
    if status.code is DEADLINE and call.deadline is not None and now >= call.deadline - _EARLY:
        told = DeadlineExceeded(too_late(call, now))
    elif len(call.attempts) > 1:
        told = RetriesExhausted(exhausted(call), call.attempts)
    else:
        error = cause or base(status)
        error.__dict__["trimtab"] = call
        if call.endpoint is not None:
            error.add_note(f"[{call.service} at {call.endpoint.target}]")
        return error
    told.__dict__["trimtab"] = call
    return adopt(told, base, status=status, code=Code(told.code, status.code))


def refusal(error: Exception, base: Base) -> Exception:
    """An error of the mesh as one of gRPC; any other as it is."""
    code = _CODES.get(type(error))
    if code is None:
        return error
    assert isinstance(error, TrimtabError)
    return adopt(error, base, status=Status(code, str(error)), code=Code(error.code, code))
