"""What may be registered or configured: every bad place of a request is named at once, each with a hint."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from controlplane.core.defaults import CONFIG_FORMATS as CONFIG_FORMATS
from controlplane.core.defaults import DEFAULT_NAMESPACE, DEFAULT_WEIGHT, EVERY_SERVICE
from controlplane.core.model import Instance, InstanceState
from controlplane.errors import Code, TrimtabError, Violation

MAX_WEIGHT = 65_535
MAX_METADATA_ENTRIES = 64
MAX_METADATA_KEY = 63
MAX_METADATA_VALUE = 512
MAX_METADATA_BYTES = 8 * 1024
MAX_CONFIG_BYTES = 512 * 1024

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_NAME_RULE = "1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit"
_ID_RULE = "1 to 128 of letters, digits and . _ : -"


class Findings:
    """Collects what is wrong in one request, then raises it all together or nothing."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def add(self, path: str, message: str, hint: str = "") -> None:
        """Note that ``path`` is wrong, and the way out."""
        self._violations.append(Violation(path, message, hint))

    def name(self, path: str, value: str) -> None:
        """A namespace, service or application name."""
        if not is_name(value):
            self.add(path, f"{_shown(value)} is not a valid name", _NAME_RULE)

    def policy(self, path: str, value: str) -> None:
        """The name of a policy: a service's, or that of the policy for all services of a namespace."""
        if value != EVERY_SERVICE:
            self.name(path, value)

    def identifier(self, path: str, value: str) -> None:
        """An instance id or file name."""
        if not _ID.fullmatch(value) or value in {".", ".."}:
            self.add(path, f"{_shown(value)} is not a valid id", _ID_RULE)

    def raise_if_any(self, subject: str) -> None:
        """Raises INVALID naming every place, when there is one."""
        if self._violations:
            raise TrimtabError(Code.INVALID, f"{subject} was refused", violations=self._violations)


def instance(
    *,
    namespace: str,
    service: str,
    id: str,
    address: str,
    port: int,
    weight: int,
    zone: str,
    metadata: Mapping[str, str],
    state: int,
    default_namespace: str = DEFAULT_NAMESPACE,
) -> Instance:
    """Check what a registrant sent, fill in what it left out.

    Empty namespace, id and zero weight and state take their defaults. Raises INVALID with every violation.
    """
    findings = Findings()
    namespace = namespace or default_namespace
    findings.name("instance.namespace", namespace)
    findings.name("instance.service", service)
    _check_address(findings, address)
    if not 1 <= port <= 65_535:
        findings.add("instance.port", f"{port} is not a port", "1 to 65535")
    if id or _is_address(address):
        findings.identifier("instance.id", id or f"{address}-{port}")
    id = id or f"{address}-{port}"
    if not 0 <= weight <= MAX_WEIGHT:
        findings.add(
            "instance.weight", f"{weight} is out of range", f"1 to {MAX_WEIGHT}, or leave it out for {DEFAULT_WEIGHT}"
        )
    if len(zone) > 63:
        findings.add("instance.zone", f"{len(zone)} characters are too many", "at most 63")
    _check_metadata(findings, metadata)
    if state not in {0, *InstanceState}:
        findings.add("instance.state", f"{state} is not a state", "1 STARTING, 2 SERVING, 3 DRAINING, 4 UNHEALTHY")
    findings.raise_if_any(f"instance {_shown(id)} of service {_shown(service)}")
    return Instance(
        namespace=namespace,
        service=service,
        id=id,
        address=address,
        port=port,
        weight=weight or DEFAULT_WEIGHT,
        zone=zone,
        metadata=dict(metadata),
        state=InstanceState(state or InstanceState.SERVING),
    )


def is_name(value: str) -> bool:
    """Whether it may name a namespace, service or application."""
    return _NAME.fullmatch(value) is not None


def check_instance_name(namespace: str, service: str, id: str) -> None:
    """Raises INVALID when the three do not name an instance."""
    findings = Findings()
    findings.name("namespace", namespace)
    findings.name("service", service)
    findings.identifier("id", id)
    findings.raise_if_any("the instance name")


def check_config(namespace: str, app: str, file: str, format: str, content: bytes) -> None:
    """Raises INVALID when the name, the format or the size of a configuration file is not acceptable."""
    findings = Findings()
    findings.name("namespace", namespace)
    findings.name("app", app)
    findings.identifier("file", file)
    if format not in CONFIG_FORMATS:
        findings.add("format", f"{_shown(format)} is not a format", "one of " + ", ".join(CONFIG_FORMATS))
    if len(content) > MAX_CONFIG_BYTES:
        findings.add("content", f"{len(content)} bytes are too many", f"at most {MAX_CONFIG_BYTES}")
    findings.raise_if_any(f"configuration {_shown(app)}/{_shown(file)}")


def _check_metadata(findings: Findings, metadata: Mapping[str, str]) -> None:
    path = "instance.metadata"
    if len(metadata) > MAX_METADATA_ENTRIES:
        findings.add(path, f"{len(metadata)} entries are too many", f"at most {MAX_METADATA_ENTRIES}")
        return
    for key, value in metadata.items():
        if not 1 <= len(key) <= MAX_METADATA_KEY:
            findings.add(f"{path}[{_shown(key)}]", f"a key of {len(key)} characters", f"1 to {MAX_METADATA_KEY}")
        if len(value) > MAX_METADATA_VALUE:
            findings.add(
                f"{path}[{_shown(key)}]", f"a value of {len(value)} characters", f"at most {MAX_METADATA_VALUE}"
            )
    size = sum(len(k.encode()) + len(v.encode()) for k, v in metadata.items())
    if size > MAX_METADATA_BYTES:
        findings.add(
            path,
            f"{size} bytes in all are too many",
            f"at most {MAX_METADATA_BYTES}; put large values into a config file",
        )


def _check_address(findings: Findings, address: str) -> None:
    if not _is_address(address):
        findings.add(
            "instance.address", f"{_shown(address)} is neither an IP address nor a host name", "without scheme and port"
        )
    elif _is_unspecified(address):
        findings.add(
            "instance.address",
            f"{address} is where a server listens, nobody can dial it",
            "name the address of this host",
        )


def _is_address(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        # A last label of digits is a mistyped IPv4 address (RFC 3696, section 2): no such host can exist.
        return bool(_HOST.fullmatch(address)) and not address.rpartition(".")[2].isdigit()
    return "%" not in address  # a zone index means nothing on another host


def _is_unspecified(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False


def _shown(value: str) -> str:
    return repr(value if len(value) <= 64 else value[:61] + "…")
