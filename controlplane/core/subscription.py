"""What one stream follows, what it was sent, and what it still has to be told: its one coalescing slot.

Level-triggered: the slot holds names, not contents. A name that changes ten times while the client is busy is sent
once, at its newest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from controlplane.core.resource import ResourceName
from controlplane.core.view import View

_REASON_LIMIT = 1024
# Deltas that a client may owe an answer for: one on its way while another is applied. What changes meanwhile gathers in
# the slot, not in socket buffers: under overload everybody gets fewer and newer deltas instead of every old one late.
_IN_FLIGHT = 2
_UNKNOWN = -1  # a revision before any history: what starts from it is the whole


@dataclass(slots=True)
class Held:
    """What the client is believed to hold of a resource.

    ``version`` is what the client calls it (0: nothing) and ``digest`` its content. ``known`` is the revision from which
    this replica knows every later change to that content; the two differ after the client came from another replica.
    """

    version: int
    digest: int
    known: int
    answered: bool = False


class Outgoing(NamedTuple):
    """One resource to send: what changed after revision ``since``, to a client that holds ``base``; base 0: the whole."""

    name: ResourceName
    since: int
    base: int


class Sent(NamedTuple):
    """A delta on its way, not yet acknowledged."""

    nonce: int
    version: int
    at: float
    changed_at: float
    outgoing: list[Outgoing]


# Made thousands of times for each change: a tuple's own constructor takes two thirds of the time.
_outgoing: Callable[[tuple[ResourceName, int, int]], Outgoing] = partial(tuple.__new__, Outgoing)
_sent: Callable[[tuple[int, int, float, float, list[Outgoing]]], Sent] = partial(tuple.__new__, Sent)


class Subscriptions:
    """One stream's subscriptions."""

    __slots__ = ("_changed_at", "_held", "_in_flight", "_nonce", "_slot", "acked", "nacks")

    def __init__(self) -> None:
        self._held: dict[ResourceName, Held] = {}
        self._slot: set[ResourceName] = set()
        self._in_flight: list[Sent] = []
        self._nonce = 0
        self._changed_at = 0.0
        self.acked = 0
        self.nacks: dict[ResourceName, str] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __iter__(self) -> Iterator[ResourceName]:
        return iter(self._held)

    @property
    def pending(self) -> bool:
        """Whether the slot has something to send."""
        return bool(self._slot)

    @property
    def sendable(self) -> bool:
        """Whether the slot has something to send, to a client that is not still busy with what it was sent."""
        return bool(self._slot) and len(self._in_flight) < _IN_FLIGHT

    @property
    def behind(self) -> bool:
        """Whether the client has yet to be told of, or to acknowledge, something."""
        return bool(self._slot or self._in_flight)

    def behind_on(self, name: ResourceName) -> bool:
        """Whether the client has yet to be told of, or to acknowledge, this resource."""
        return name in self._slot or any(
            name == outgoing.name for sent in self._in_flight for outgoing in sent.outgoing
        )

    @property
    def oldest_unacknowledged(self) -> float | None:
        """When the oldest delta that is not acknowledged was sent."""
        return self._in_flight[0].at if self._in_flight else None

    def subscribe(self, name: ResourceName, version: int, digest: int) -> None:
        """Follow ``name``, of which the client holds ``version`` (0: nothing)."""
        self._held[name] = Held(version, digest, version)
        self._slot.add(name)

    def unsubscribe(self, name: ResourceName) -> bool:
        """Follow ``name`` no longer; whether it was followed."""
        self._slot.discard(name)
        self.nacks.pop(name, None)
        return self._held.pop(name, None) is not None

    def enqueue(self, name: ResourceName, changed_at: float) -> bool:
        """``name`` changed at ``changed_at``; whether that is news to the slot. Of a name not followed it never is."""
        if name in self._slot or name not in self._held:
            return False
        if not self._slot:
            self._changed_at = changed_at
        self._slot.add(name)
        return True

    def take(self, view: View, now: float) -> tuple[int, list[Outgoing]]:
        """Empty the slot: a nonce and what to send, given what the view holds now. No resource: send nothing.

        A client that comes from a replica further ahead is left in the slot: it is never taken back in time.
        """
        outgoing: list[Outgoing] = []
        waiting: list[ResourceName] = []
        for name in self._slot:
            held = self._held[name]
            resource = view.resource(name)
            version, digest = (view.revision, 0) if resource is None else (resource.version, resource.digest)
            if held.version and held.digest == digest:
                # Same content, whatever its history: differences start at what this replica knows.
                held.known, held.answered = _UNKNOWN if held.known == _UNKNOWN else version, True
            elif held.known > view.revision:
                waiting.append(name)
            elif not held.answered or (held.version, held.digest) != (version, digest):
                # A listing may mend a resource without a newer revision; no difference starts from the version in doubt.
                since = _UNKNOWN if held.version == version else held.known
                outgoing.append(_outgoing((name, since, held.version)))
                held.version, held.digest, held.known, held.answered = version, digest, version, True
        self._slot.clear()
        if waiting:
            self._slot.update(waiting)
        if outgoing:
            self._nonce += 1
            self._in_flight.append(_sent((self._nonce, view.revision, now, self._changed_at or now, outgoing)))
            self._changed_at = 0.0
        elif not waiting and not self._in_flight:
            self.acked = max(self.acked, view.revision)  # it came up to date
        return self._nonce, outgoing

    def ahead(self, revision: int) -> bool:
        """Whether something waits because the client holds it at a later revision."""
        return any(self._held[name].known > revision for name in self._slot)

    def rewind(self, revision: int) -> None:
        """The store itself stands at ``revision``: what the client holds from later on is of a history that is void."""
        for name in self._slot:
            held = self._held[name]
            if held.known > revision:
                held.known = _UNKNOWN

    def ack(self, nonce: int) -> Sent | None:
        """The client applied a delta; what it was, None for a nonce that is not in flight."""
        return self._answered(nonce, refused=())

    def nack(self, nonce: int, refusals: Iterable[tuple[ResourceName, str, bool]]) -> Sent | None:
        """The client refused resources of a delta: (name, reason, wants the whole)."""
        refused = list(refusals)
        sent = self._answered(nonce, refused=[name for name, _, _ in refused])
        if sent is None:
            return None
        for name, reason, resend in refused:
            if name not in self._held:
                continue
            self.nacks[name] = reason[:_REASON_LIMIT]
            if resend:
                self._held[name] = Held(0, 0, 0)
                self._slot.add(name)
            else:
                # It keeps an older version, which one is not said: what comes next starts from nothing.
                self._held[name].known = _UNKNOWN
        return sent

    def _answered(self, nonce: int, refused: Collection[ResourceName]) -> Sent | None:
        in_flight = self._in_flight
        while in_flight and in_flight[0].nonce < nonce:
            in_flight.pop(0)
        if not in_flight or in_flight[0].nonce != nonce:
            return None
        sent = in_flight.pop(0)
        self.acked = sent.version
        if self.nacks:
            for name, _, _ in sent.outgoing:
                if name not in refused:
                    self.nacks.pop(name, None)
        return sent
