"""What can go wrong, each with one stable code, one gRPC status and one HTTP status, mapped here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Code(Enum):
    """The catalogue: stable code, gRPC status name, HTTP status, and whether the same request may succeed later."""

    INVALID = ("request.invalid", "INVALID_ARGUMENT", 400, False)
    MALFORMED = ("request.malformed", "INVALID_ARGUMENT", 400, False)
    POLICY_INVALID = ("policy.invalid", "INVALID_ARGUMENT", 400, False)
    TOO_LARGE = ("request.too_large", "INVALID_ARGUMENT", 413, False)
    METHOD = ("request.method", "UNIMPLEMENTED", 405, False)
    FLOOD = ("request.flood", "RESOURCE_EXHAUSTED", 429, True)
    UNAUTHENTICATED = ("access.unauthenticated", "UNAUTHENTICATED", 401, False)
    DENIED = ("access.denied", "PERMISSION_DENIED", 403, False)
    NOT_FOUND = ("resource.not_found", "NOT_FOUND", 404, False)
    INSTANCE_NOT_FOUND = ("instance.not_found", "NOT_FOUND", 404, False)
    INSTANCE_DUPLICATE = ("instance.duplicate", "ALREADY_EXISTS", 409, False)
    CONFLICT = ("store.conflict", "ABORTED", 409, True)
    PRECONDITION = ("resource.precondition_failed", "FAILED_PRECONDITION", 412, False)
    PRECONDITION_REQUIRED = ("resource.precondition_required", "FAILED_PRECONDITION", 428, False)
    SESSION_LOST = ("session.lost", "FAILED_PRECONDITION", 409, False)
    SESSION_INVALID = ("session.invalid", "INVALID_ARGUMENT", 400, False)
    TOO_MANY_SUBSCRIPTIONS = ("stream.too_many_subscriptions", "RESOURCE_EXHAUSTED", 429, False)
    STREAM_PROTOCOL = ("stream.protocol", "INVALID_ARGUMENT", 400, False)
    STREAM_STUCK = ("stream.stuck", "DEADLINE_EXCEEDED", 504, True)
    NOT_READY = ("server.not_ready", "UNAVAILABLE", 503, True)
    STORE_UNAVAILABLE = ("store.unavailable", "UNAVAILABLE", 503, True)
    STORE_TIMEOUT = ("store.timeout", "DEADLINE_EXCEEDED", 504, True)
    STORE_REFUSED = ("store.refused", "FAILED_PRECONDITION", 503, False)
    STORE_COMPACTED = ("store.compacted", "OUT_OF_RANGE", 410, False)
    STORE_NO_BINARY = ("store.no_binary", "FAILED_PRECONDITION", 500, False)
    SETTINGS = ("settings.invalid", "INVALID_ARGUMENT", 500, False)
    INTERNAL = ("server.internal", "INTERNAL", 500, False)

    def __init__(self, code: str, grpc_status: str, http_status: int, retryable: bool) -> None:
        self.code = code
        self.grpc_status = grpc_status
        self.http_status = http_status
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Violation:
    """One place in a request and what is wrong there. ``line`` and ``column`` count from 1; 0: not known."""

    path: str
    message: str
    hint: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line else ""
        path = f"{self.path}: " if self.path else ""
        return f"{place}{path}{self.message}" + (f" ({self.hint})" if self.hint else "")


class TrimtabError(Exception):
    """A refusal or failure with a stable code, the place, and the way out.

    >>> raise TrimtabError(Code.INSTANCE_DUPLICATE, "orders/a is held by another session", hint="choose another id")
    """

    def __init__(self, code: Code, message: str, *, hint: str = "", violations: Iterable[Violation] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.violations = tuple(violations)

    def __str__(self) -> str:
        places = "".join(f"\n  {violation}" for violation in self.violations)
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{self.code.code}: {self.message}{places}{hint}"
