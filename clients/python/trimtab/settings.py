"""What a Mesh is told: arguments first, then TRIMTAB_… in the environment, then defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from trimtab.errors import SettingsInvalid

DEFAULT_SERVER = "127.0.0.1:7071"
_SCHEMES = {"https://": True, "http://": False}

# Those that need nothing but the endpoints; a policy has all of them, with their settings.
ALGORITHMS = ("p2c", "least_request", "round_robin", "random", "pick_first")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is fixed for the life of a Mesh. ``tls`` None: plain text; ``snapshot_dir`` None: no disk snapshot."""

    servers: tuple[str, ...]
    namespace: str
    token: str
    zone: str
    name: str
    labels: Mapping[str, str]
    tls: Tls | None
    snapshot_dir: Path | None
    discovery_timeout: float
    algorithm: str


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM contents. ``ca`` None: the system's; a client certificate needs its key."""

    ca: bytes | None
    cert: bytes | None
    key: bytes | None


class Options(TypedDict, total=False):
    """What a Mesh takes beside its servers. The environment stands in for what is left out; see Mesh."""

    token: str | None
    namespace: str | None
    zone: str | None
    name: str | None
    labels: Mapping[str, str] | None
    ca: str | Path | None
    cert: str | Path | None
    key: str | Path | None
    snapshot: bool
    snapshot_dir: str | Path | None
    discovery_timeout: float
    algorithm: str


def resolve(
    servers: str | Sequence[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    **options: Unpack[Options],
) -> Settings:
    """Return the settings that arguments and environment amount to. Raises SettingsInvalid, naming the one that is wrong."""
    environ = os.environ if environ is None else environ
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        raise TypeError(f"unexpected arguments: {', '.join(sorted(unknown))}")
    algorithm = options.get("algorithm", "p2c")
    discovery_timeout = options.get("discovery_timeout", 2.0)
    snapshot_dir = options.get("snapshot_dir")

    def told(argument: str | None, variable: str) -> str:
        return environ.get(variable, "").strip() if argument is None else argument

    addresses, secure = _addresses(servers if servers is not None else environ.get("TRIMTAB_SERVERS", ""))
    if algorithm not in ALGORITHMS:
        raise SettingsInvalid(f"algorithm is {algorithm!r}", hint=f"one of {', '.join(ALGORITHMS)}")
    if not discovery_timeout >= 0:
        raise SettingsInvalid(f"discovery_timeout is {discovery_timeout!r}", hint="seconds, 0 or more")
    ca_pem = _pem(options.get("ca"), "ca", "TRIMTAB_CA", environ)
    cert_pem = _pem(options.get("cert"), "cert", "TRIMTAB_CERT", environ)
    key_pem = _pem(options.get("key"), "key", "TRIMTAB_KEY", environ)
    if (cert_pem is None) != (key_pem is None):
        raise SettingsInvalid("a client certificate and its key belong together", hint="give both cert and key")
    tls = Tls(ca_pem, cert_pem, key_pem) if secure or ca_pem or cert_pem else None
    directory = told(str(snapshot_dir) if snapshot_dir is not None else None, "TRIMTAB_SNAPSHOT_DIR")
    return Settings(
        servers=addresses,
        namespace=told(options.get("namespace"), "TRIMTAB_NAMESPACE") or "default",
        token=told(options.get("token"), "TRIMTAB_TOKEN"),
        zone=told(options.get("zone"), "TRIMTAB_ZONE"),
        name=options.get("name") or "",
        labels=dict(options.get("labels") or {}),
        tls=tls,
        snapshot_dir=(Path(directory).expanduser() if directory else _cache_dir(environ))
        if options.get("snapshot", True)
        else None,
        discovery_timeout=discovery_timeout,
        algorithm=algorithm,
    )


def _addresses(servers: str | Sequence[str]) -> tuple[tuple[str, ...], bool]:
    listed = servers.split(",") if isinstance(servers, str) else list(servers)
    addresses: list[str] = []
    secure: set[bool] = set()
    for entry in filter(None, (s.strip() for s in listed)):
        scheme = next((s for s in _SCHEMES if entry.startswith(s)), "")
        if scheme:
            secure.add(_SCHEMES[scheme])
        address = entry.removeprefix(scheme).rstrip("/")
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
            raise SettingsInvalid(
                f"server {entry!r} is not HOST:PORT", hint="as TRIMTAB_SERVERS=10.0.0.1:7071,10.0.0.2:7071"
            )
        addresses.append(address)
    if len(secure) > 1:
        raise SettingsInvalid("servers mix http:// and https://", hint="all of one mesh speak TLS or none does")
    return tuple(dict.fromkeys(addresses)) or (DEFAULT_SERVER,), True in secure


def _pem(argument: str | Path | None, name: str, variable: str, environ: Mapping[str, str]) -> bytes | None:
    path = argument if argument is not None else environ.get(variable, "").strip()
    if not path:
        return None
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise SettingsInvalid(
            f"{name} cannot be read: {error}", hint=f"a PEM file, by argument or {variable}"
        ) from error


def _cache_dir(environ: Mapping[str, str]) -> Path | None:
    base = environ.get("XDG_CACHE_HOME", "")
    if base:
        return Path(base) / "trimtab"
    try:
        return Path.home() / ".cache" / "trimtab"
    except RuntimeError:
        # A process without a home keeps no snapshot unless it is told where.
        return None
