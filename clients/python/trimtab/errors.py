"""What can go wrong for a caller of the SDK.

TrimtabError                  .code, stable; .message; .hint
├── NoEndpoints               nobody to call: says what is known of the service
├── Rejected                  a policy kept the call from being sent: .retry_after, seconds until it is worth another try
│   ├── RateLimited           more calls than the rate limit allows
│   ├── CircuitOpen           the calls before it failed
│   └── Overloaded            too many calls are under way, or the callee refuses most of them
├── DeadlineExceeded          the time for the whole call, all attempts included, is over
├── FaultInjected             the policy asked for this failure
├── RetriesExhausted          every attempt failed: .attempts
├── Refused                   a server refused a request: the server's own code, hint and violations
├── NotConnected              the request needs a server and none could be reached in time
├── SnapshotInvalid           a disk snapshot that is corrupt, foreign or of another format
├── ConfigInvalid             a configuration value that does not exist or cannot be used
├── SettingsInvalid           also a ValueError: the Mesh was given something it cannot work with
└── MeshClosed                the Mesh was used after close()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One place in a refused request, as ``instance.port``, and what is wrong there."""

    path: str
    message: str
    hint: str = ""


class TrimtabError(Exception):
    """Base of everything the SDK raises on purpose."""

    code = "sdk.error"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code:
            self.code = code

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.code}: {self.message}{hint}"


class NoEndpoints(TrimtabError):
    """No endpoint of the service may be called now. ``service`` is ``NAMESPACE/SERVICE``."""

    code = "service.no_endpoints"

    def __init__(self, message: str, *, service: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.service = service


class Rejected(TrimtabError):
    """A policy kept the call from being sent. ``retry_after``: seconds until it is worth another try; inf: not by waiting."""

    code = "call.rejected"

    def __init__(self, message: str, *, retry_after: float = 0.0, service: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.service = service


class RateLimited(Rejected):
    """More calls than the rate limit of the policy allows."""

    code = "call.rate_limited"


class CircuitOpen(Rejected):
    """The circuit is open: the calls before this one failed, or were too slow, or an operator opened it."""

    code = "call.circuit_open"


class Overloaded(Rejected):
    """Too many calls are under way already, or the callee refuses most of what it is sent."""

    code = "call.overloaded"


class DeadlineExceeded(TrimtabError):
    """The time for the whole call, all attempts and waits included, is over."""

    code = "call.deadline_exceeded"


class FaultInjected(TrimtabError):
    """The policy of the service asks for this failure. ``condition``: what it stands for, as ``503`` or ``connect-failure``."""

    code = "call.fault_injected"

    def __init__(self, condition: str) -> None:
        super().__init__(f"{condition}, injected by the service's policy", hint="remove its fault section")
        self.condition = condition


class RetriesExhausted(TrimtabError):
    """Every attempt failed. ``attempts`` tells each endpoint that was tried and how it failed; the cause is the last failure."""

    code = "call.retries_exhausted"

    def __init__(self, message: str, attempts: Sequence[object] = (), *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.attempts = tuple(attempts)


class Refused(TrimtabError):
    """A server's refusal, with its stable code. ``retryable``: the same request may succeed later, unchanged."""

    def __init__(
        self, code: str, message: str, *, hint: str = "", violations: Sequence[Violation] = (), retryable: bool = False
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.violations = tuple(violations)
        self.retryable = retryable

    def __str__(self) -> str:
        places = "".join(f"\n  {v.path}: {v.message}" + (f" ({v.hint})" if v.hint else "") for v in self.violations)
        return super().__str__() + places


class NotConnected(TrimtabError):
    """No server answered in time. ``servers`` were tried."""

    code = "sdk.not_connected"

    def __init__(self, message: str, servers: Sequence[str] = (), *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.servers = tuple(servers)


class SnapshotInvalid(TrimtabError):
    """A disk snapshot that must not be used: corrupt, signed with another key, or of another format."""

    code = "snapshot.invalid"


class ConfigInvalid(TrimtabError):
    """A configuration value that does not exist yet, does not parse or does not fit its model."""

    code = "config.invalid"


class SettingsInvalid(TrimtabError, ValueError):
    """The Mesh was given a setting or argument that it cannot work with."""

    code = "settings.invalid"


class MeshClosed(TrimtabError):
    """The Mesh was used after ``close()``."""

    code = "sdk.closed"

    def __init__(self) -> None:
        super().__init__("this Mesh is closed", hint="make a new Mesh, or close it later")


class MissingExtra(ImportError):
    """What a policy asks for needs an optional package, which is not installed."""
