"""Records as values: compact JSON that an operator can read with ``etcdctl get``.

Every value opens with ``"v"``, the version of its form. A reader ignores fields it does not know and refuses a newer
form. The same record always gives the same bytes, so that a write that changes nothing can be told by comparing.
What the key says already (an instance's namespace, service and id) is not said again.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from controlplane.core.model import (
    ConfigFile,
    Desired,
    Instance,
    InstanceState,
    Kind,
    PolicyDocument,
    Protection,
    Record,
    Ref,
    Replica,
    SessionRecord,
)
from controlplane.errors import Code, TrimtabError

VERSION = 1
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode

T = TypeVar("T")


def encode(record: Record) -> bytes:
    """The record's value. Deterministic."""
    fields = {"v": VERSION, **_fields(record)}
    return _compact(fields).encode()


def decode(ref: Ref, value: bytes, *, key: str) -> Record:
    """The record that ``value`` holds. Raises ``MALFORMED`` naming ``key`` and the field."""
    try:
        loaded = json.loads(value.decode())  # given bytes, it would guess at other encodings first
    except (ValueError, RecursionError) as error:
        raise _malformed(key, f"is not JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise _malformed(key, f"is a JSON {type(loaded).__name__}, not an object")
    reader = _Reader(key, loaded)
    version = reader.integer("v", low=1)
    if version > VERSION:
        raise _malformed(key, f"has form {version}, this program reads up to {VERSION}", hint="upgrade this replica")
    return _DECODERS[ref.kind](ref, reader)


def _fields(record: Record) -> dict[str, Any]:
    match record:
        case Instance():
            return {
                "address": record.address,
                "port": record.port,
                "weight": record.weight,
                "zone": record.zone,
                "state": record.state.name.lower(),
                "metadata": dict(sorted(record.metadata.items())),
            }
        case Desired():
            return {"drain": record.drain, "weight": record.weight, "by": record.by}
        case Protection():
            return {"replica": record.replica, "suspects": list(record.suspects), "reason": record.reason}
        case ConfigFile():
            return {"format": record.format, "author": record.author, **_content(record.content)}
        case PolicyDocument():
            return {"author": record.author, "source": record.source, **_content(record.document)}
        case Replica():
            return {
                "grpc_address": record.grpc_address,
                "http_address": record.http_address,
                "version": record.version,
                "started_at": record.started_at,
            }
        case SessionRecord():
            return {
                "node": record.node,
                "name": record.name,
                "namespace": record.namespace,
                "replica": record.replica,
                "ttl": record.ttl,
            }


def _content(content: bytes) -> dict[str, str]:
    encoded = base64.b64encode(content).decode()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return {"base64": encoded}
    # Text for people, unless it is mostly what JSON must escape: that would outgrow what a store takes as one value.
    return {"text": text} if len(json.dumps(text)) <= len(encoded) + len(text) else {"base64": encoded}


def _malformed(key: str, message: str, *, hint: str = "") -> TrimtabError:
    return TrimtabError(Code.MALFORMED, f"the value of {key!r} {message}", hint=hint)


class _Reader:
    """Typed access to the fields of one value; every complaint names the key."""

    def __init__(self, key: str, fields: Mapping[str, Any]) -> None:
        self.key = key
        self.fields = fields

    def text(self, name: str, default: str | None = None) -> str:
        found = self.fields.get(name, default)
        # A start reads a hundred thousand fields: what JSON makes of the right ones is told without a call.
        return found if type(found) is str else self._typed(name, str, default)

    def flag(self, name: str, default: bool) -> bool:
        return self._typed(name, bool, default)

    def integer(self, name: str, *, low: int, high: int | None = None, default: int | None = None) -> int:
        number = self.fields.get(name, default)
        if type(number) is not int:
            number = self._typed(name, int, default)
        if isinstance(number, bool) or number < low or (high is not None and number > high):
            raise _malformed(self.key, f"has {name!r} = {number!r}, which is out of range")
        return number

    def number(self, name: str) -> float:
        found = self.fields.get(name)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise _malformed(self.key, f"has {name!r} = {found!r}, where a number belongs")
        return float(found)

    def texts(self, name: str) -> tuple[str, ...]:
        found = self._typed(name, list, [])
        if not all(isinstance(item, str) for item in found):
            raise _malformed(self.key, f"has {name!r} with something in it that is no text")
        return tuple(found)

    def mapping(self, name: str) -> dict[str, str]:
        found = self._typed(name, dict, {})
        for value in found.values():
            if type(value) is not str:
                raise _malformed(self.key, f"has {name!r} with a value that is no text")
        return found

    def content(self) -> bytes:
        if "base64" not in self.fields:
            return self.text("text").encode()
        try:
            return base64.b64decode(self.text("base64"), validate=True)
        except binascii.Error as error:
            raise _malformed(self.key, f"has a 'base64' that is none: {error}") from error

    def state(self) -> InstanceState:
        name = self.text("state", InstanceState.SERVING.name)
        try:
            return InstanceState[name.upper()]
        except KeyError:
            raise _malformed(self.key, f"has the unknown state {name!r}") from None

    def _typed(self, name: str, kind: type[T], default: T | None) -> T:
        found = self.fields.get(name, default)
        if not isinstance(found, kind):
            raise _malformed(self.key, f"has {name!r} = {found!r}, where {kind.__name__} belongs")
        return found


def _instance(ref: Ref, reader: _Reader) -> Instance:
    if len(ref.path) != 3:
        raise TrimtabError(Code.MALFORMED, f"key {reader.key!r} is no instance's: namespace/service/id is due")
    namespace, service, instance = ref.path
    return Instance(
        namespace=namespace,
        service=service,
        id=instance,
        address=reader.text("address"),
        port=reader.integer("port", low=0, high=65535),
        weight=reader.integer("weight", low=0, default=100),
        zone=reader.text("zone", ""),
        metadata=reader.mapping("metadata"),
        state=reader.state(),
    )


def _desired(_: Ref, reader: _Reader) -> Desired:
    weight = None if reader.fields.get("weight") is None else reader.integer("weight", low=0)
    return Desired(drain=reader.flag("drain", False), weight=weight, by=reader.text("by", ""))


def _protection(_: Ref, reader: _Reader) -> Protection:
    return Protection(reader.text("replica"), reader.texts("suspects"), reader.text("reason", ""))


def _config(_: Ref, reader: _Reader) -> ConfigFile:
    return ConfigFile(reader.text("format"), reader.content(), reader.text("author", ""))


def _policy(_: Ref, reader: _Reader) -> PolicyDocument:
    return PolicyDocument(reader.content(), reader.text("source", ""), reader.text("author", ""))


def _replica(ref: Ref, reader: _Reader) -> Replica:
    return Replica(
        id=ref.path[-1],
        grpc_address=reader.text("grpc_address"),
        http_address=reader.text("http_address"),
        version=reader.text("version", ""),
        started_at=reader.number("started_at"),
    )


def _session(_: Ref, reader: _Reader) -> SessionRecord:
    return SessionRecord(
        node=reader.text("node"),
        name=reader.text("name"),
        namespace=reader.text("namespace"),
        replica=reader.text("replica"),
        ttl=reader.number("ttl"),
    )


_DECODERS: dict[Kind, Callable[[Ref, _Reader], Record]] = {
    Kind.INSTANCE: _instance,
    Kind.DESIRED: _desired,
    Kind.PROTECTION: _protection,
    Kind.CONFIG: _config,
    Kind.POLICY: _policy,
    Kind.REPLICA: _replica,
    Kind.SESSION: _session,
}
