"""Versioned resources: what a subscriber is sent, whole or as the difference since the version that it holds.

A service's endpoints keep a short log of who changed at which revision, so the difference since a recent version costs as
much as the change, not as the service. The digest is the XOR of one hash per endpoint: equal content has an equal digest
on every replica, whatever the order of events, and one change updates it in constant time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import NamedTuple

from controlplane.core.model import ConfigFile, Endpoint, PolicyDocument

_PROTECTED_DIGEST = 0x9E3779B97F4A7C15  # any constant: tells a protected service from the same one unprotected
_LOG_FLOOR = 1024  # changes remembered at least; beyond it, as many as the service has endpoints


class ResourceKind(IntEnum):
    """What can be subscribed to; the numbers are the wire's."""

    ENDPOINTS = 1
    POLICY = 2
    CONFIG = 3


class ResourceName(NamedTuple):
    """As the wire names it: ``(ENDPOINTS, "default/orders")``."""

    kind: ResourceKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.name.lower()}/{self.name}"


class Difference(NamedTuple):
    """Endpoints to add or replace and ids to remove. ``full``: ``changed`` is everything."""

    full: bool
    changed: Collection[Endpoint]
    removed: Collection[str]


class EndpointSet:
    """The endpoints of one service with their recent history."""

    __slots__ = ("_blind", "_floor", "_log", "digest", "endpoints", "protected", "version")

    def __init__(self, floor: int) -> None:
        """``floor``: the revision from which on every change will be recorded here."""
        self.endpoints: dict[str, Endpoint] = {}
        self.protected = False
        self.version = floor
        self.digest = 0
        self._floor = floor
        self._blind = (0, 0)
        self._log: deque[tuple[int, str]] = deque()

    def put(self, id: str, endpoint: Endpoint | None, revision: int) -> bool:
        """Set or (None) remove an endpoint; whether that changed anything."""
        held = self.endpoints.get(id)
        if held == endpoint:
            return False
        if held is not None:
            self.digest ^= endpoint_digest(held)
        if endpoint is None:
            del self.endpoints[id]
        else:
            self.endpoints[id] = endpoint
            self.digest ^= endpoint_digest(endpoint)
        self.version = revision
        self._log.append((revision, id))
        if len(self._log) > max(_LOG_FLOOR, len(self.endpoints)):
            self._floor = self._log.popleft()[0]
        return True

    def protect(self, protected: bool, revision: int) -> bool:
        """Set the mass-failure flag; whether it changed."""
        if self.protected == protected:
            return False
        self.protected = protected
        self.digest ^= _PROTECTED_DIGEST
        self.version = revision
        return True

    def overlooked(self, start: int, end: int) -> None:
        """What happened between two revisions, both excluded, was not seen one by one: a difference from there is unknown."""
        if end - start > 1:
            first, _ = self._blind
            self._blind = (min(first, start) if first else start, end)

    def since(self, version: int) -> Difference:
        """What a holder of ``version`` is missing; everything when that is no longer known."""
        if version < self._floor or self._blind[0] < version < self._blind[1]:
            return self.whole()
        touched: set[str] = set()
        for revision, id in reversed(self._log):
            if revision <= version:
                break
            touched.add(id)
        if len(touched) > max(1, len(self.endpoints)):
            return self.whole()
        changed = [self.endpoints[id] for id in touched if id in self.endpoints]
        return Difference(False, changed, [id for id in touched if id not in self.endpoints])

    def whole(self) -> Difference:
        """Everything, for a holder of nothing."""
        return Difference(True, self.endpoints.values(), ())


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration or policy: always sent whole."""

    content: ConfigFile | PolicyDocument
    version: int
    digest: int


def endpoint_digest(endpoint: Endpoint) -> int:
    """64-bit hash of an endpoint's content, equal on every replica."""
    metadata = sorted(endpoint.metadata.items())
    return _hash64(
        repr(
            (
                endpoint.id,
                endpoint.address,
                endpoint.port,
                endpoint.weight,
                int(endpoint.health),
                endpoint.zone,
                metadata,
            )
        ).encode()
    )


def document_digest(content: ConfigFile | PolicyDocument) -> int:
    """64-bit hash of a document's content, never 0 (0 means "does not exist")."""
    raw = content.format.encode() + b"\0" + content.content if isinstance(content, ConfigFile) else content.document
    return _hash64(raw) or 1


def _hash64(raw: bytes) -> int:
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "big")
