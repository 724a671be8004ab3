"""How to reach etcd. Checked when built, so that a wrong setting is refused by name before anything is tried."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from controlplane.errors import Code, TrimtabError, Violation


@dataclass(frozen=True)
class EtcdOptions:
    """Where etcd is and how to speak to it.

    ``endpoints`` are ``host:port``, ``http://host:port`` or ``https://host:port``, one for each member; ``ca``, ``cert``
    and ``key`` are paths of PEM files. TLS is used when any endpoint says https or any of the files is given.
    ``server_name`` is the name to expect in the members' certificates when it is not the endpoint's own. ``timeout`` is
    the most seconds that one call may take, failover included; ``silence`` the most seconds that a watch goes without
    a sign of life from its member before it moves to another. ``gather``: whether transactions that wait at the same
    moment go in one request.

    Raises ``SETTINGS`` naming each wrong field.
    """

    endpoints: tuple[str, ...] = ("127.0.0.1:2379",)
    ca: Path | str = ""
    cert: Path | str = ""
    key: Path | str = ""
    server_name: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 5.0
    silence: float = 5.0
    gather: bool = True

    def __post_init__(self) -> None:
        violations = [*self._wrong_endpoints(), *self._wrong_fields()]
        if violations:
            raise TrimtabError(Code.SETTINGS, "the etcd settings are wrong", violations=violations)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The endpoints as ``host:port``, each once."""
        return tuple(dict.fromkeys(_netloc(endpoint) for endpoint in self.endpoints))

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return bool(self.ca or self.cert) or any(endpoint.startswith("https://") for endpoint in self.endpoints)

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Reads the PEM files; None without TLS. Raises ``SETTINGS`` naming a file that cannot be read."""
        if not self.tls:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_read("ca", self.ca),
            private_key=_read("key", self.key),
            certificate_chain=_read("cert", self.cert),
        )

    def _wrong_endpoints(self) -> list[Violation]:
        if not self.endpoints:
            return [Violation("endpoints", "is empty", "for instance 127.0.0.1:2379")]
        schemes = {endpoint.partition("://")[0] for endpoint in self.endpoints if "://" in endpoint}
        wrong = [
            Violation(f"endpoints[{index}]", f"{endpoint!r} is not host:port", "for instance 10.0.0.1:2379")
            for index, endpoint in enumerate(self.endpoints)
            if not _is_address(endpoint)
        ]
        if len(schemes) > 1:
            wrong.append(Violation("endpoints", "some say http and some https", "all members speak the same"))
        return wrong

    def _wrong_fields(self) -> list[Violation]:
        wrong = []
        if bool(self.cert) != bool(self.key):
            wrong.append(
                Violation("cert" if self.key else "key", "is missing", "a certificate and its key go together")
            )
        if self.tls and any(endpoint.startswith("http://") for endpoint in self.endpoints):
            wrong.append(Violation("endpoints", "say http, yet certificates are given", "write https:// or host:port"))
        if self.password and not self.user:
            wrong.append(Violation("user", "is missing", "a password was given"))
        wrong += [
            Violation(name, f"{value} is not more than 0 seconds")
            for name, value in (("timeout", self.timeout), ("silence", self.silence))
            if not value > 0
        ]
        return wrong


def _netloc(endpoint: str) -> str:
    return endpoint.partition("://")[2].rstrip("/") if "://" in endpoint else endpoint


def _is_address(endpoint: str) -> bool:
    split = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    try:
        port = split.port
    except ValueError:
        return False
    return split.scheme in {"http", "https"} and bool(split.hostname) and bool(port) and split.path in {"", "/"}


def _read(name: str, path: Path | str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TrimtabError(
            Code.SETTINGS,
            "the etcd settings are wrong",
            violations=[Violation(name, f"cannot read {path}: {error.strerror}")],
        ) from error
