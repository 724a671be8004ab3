"""From the view to bytes: each changed resource is encoded once, and spliced into every stream's delta.

A delta differs between streams only by its nonce. So the bytes of a resource are cached by what they start from, and a
stream's message is a header and a join. Field numbers are taken from the descriptors: the ``.proto`` stays their home.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.v1 import mesh_pb2, types_pb2

from controlplane.core.model import ConfigFile, Endpoint
from controlplane.core.resource import Document, EndpointSet, ResourceName
from controlplane.core.subscription import Outgoing
from controlplane.core.view import View

_LENGTH_DELIMITED = 2
_CACHED_RESOURCES = 4096
_SHORT = [bytes((value,)) for value in range(0x80)]


def _tag(message: Any, field: str, wire_type: int = _LENGTH_DELIMITED) -> bytes:
    return varint(message.fields_by_name[field].number << 3 | wire_type)


def varint(value: int) -> bytes:
    """Base-128 varint of a number that is not negative (protobuf's wire format)."""
    if value < 0x80:
        return _SHORT[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_DELTA = _tag(mesh_pb2.ServerMessage.DESCRIPTOR, "delta")
_NONCE = _tag(mesh_pb2.Delta.DESCRIPTOR, "nonce", 0)
_VERSION = _tag(mesh_pb2.Delta.DESCRIPTOR, "version", 0)
_RESOURCES = _tag(mesh_pb2.Delta.DESCRIPTOR, "resources")


class Encoder:
    """Encodes one view's resources. Only the newest content of each is cached."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._cache: dict[ResourceName, tuple[tuple[int, int], dict[tuple[int, int], bytes]]] = {}
        self._last: tuple[int, Sequence[Outgoing], bytes] = (-1, (), b"")

    def delta(self, nonce: int, outgoing: Sequence[Outgoing]) -> bytes:
        """A serialised ServerMessage with a delta of ``outgoing``, at the view's revision."""
        edition, last, tail = self._last
        # Thousands of streams are sent the same, one after the other.
        if edition != self._view.edition or last != outgoing:
            tail = b"".join([_VERSION, varint(self._view.revision), *[self._chunk(*item) for item in outgoing]])
            self._last = (self._view.edition, outgoing, tail)
        head = _NONCE + varint(nonce)
        return b"".join((_DELTA, varint(len(head) + len(tail)), head, tail))

    def resource(self, name: ResourceName) -> types_pb2.Resource:
        """One resource, whole."""
        return self._message(name, 0, 0)

    def _chunk(self, name: ResourceName, since: int, base: int) -> bytes:
        """The resource as one element of ``Delta.resources``, tag and length included."""
        resource = self._view.resource(name)
        if resource is None:
            return _element(self._message(name, since, base))
        state = (resource.version, resource.digest)
        cached = self._cache.get(name)
        if cached is None or cached[0] != state:
            if len(self._cache) >= _CACHED_RESOURCES:
                del self._cache[next(iter(self._cache))]
            cached = self._cache[name] = (state, {})
        encoded = cached[1].get((since, base))
        if encoded is None:
            if base and (isinstance(resource, Document) or resource.since(since).full):
                encoded = self._chunk(name, 0, 0)  # no difference: all who need the whole share its bytes
            else:
                encoded = _element(self._message(name, since, base))
            cached[1][since, base] = encoded
        return encoded

    def _message(self, name: ResourceName, since: int, base: int) -> types_pb2.Resource:
        message = types_pb2.Resource(kind=int(name.kind), name=name.name)  # type: ignore[arg-type]
        match self._view.resource(name):
            case None:
                message.version = self._view.revision
            case Document(content, version, digest):
                message.version, message.digest = version, digest
                if isinstance(content, ConfigFile):
                    message.config.format, message.config.content = content.format, content.content
                else:
                    message.policy.document = content.document
            case EndpointSet() as held:
                message.version, message.digest = held.version, held.digest
                self._fill(message.endpoints, held, since, base)
        return message

    @staticmethod
    def _fill(message: types_pb2.Endpoints, held: EndpointSet, since: int, base: int) -> None:
        difference = held.since(since) if base else held.whole()
        message.full = difference.full
        message.base = 0 if difference.full else base
        message.total = len(held.endpoints)
        message.protected = held.protected
        message.changed.extend(_endpoint(endpoint) for endpoint in difference.changed)
        message.removed.extend(difference.removed)


def _endpoint(endpoint: Endpoint) -> types_pb2.Endpoint:
    return types_pb2.Endpoint(
        id=endpoint.id,
        address=endpoint.address,
        port=endpoint.port,
        weight=endpoint.weight,
        health=int(endpoint.health),  # type: ignore[arg-type]
        zone=endpoint.zone,
        metadata=endpoint.metadata,
    )


def _element(message: types_pb2.Resource) -> bytes:
    raw = message.SerializeToString()
    return b"".join((_RESOURCES, varint(len(raw)), raw))
