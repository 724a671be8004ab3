"""What can go wrong for a caller of the SDK.

TrimtabError                  .code, stable; .message; .hint
├── NoEndpoints               nobody to call: says what is known of the service
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
