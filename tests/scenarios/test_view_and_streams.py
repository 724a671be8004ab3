"""Replicas that follow one store, and clients that follow them: what is sent, and what the client then holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from trimtab.v1 import mesh_pb2, types_pb2

from controlplane.core.model import Desired, Event, Instance, Kind, Protection, Record, Ref, Stored
from controlplane.core.resource import ResourceKind, ResourceName
from controlplane.core.subscription import Subscriptions
from controlplane.core.view import View
from controlplane.rpc.encoder import Encoder
from tests.scenarios.transcript import Command, check

HERE = Path(__file__).parent / "streams"
ORDERS = ResourceName(ResourceKind.ENDPOINTS, "default/orders")


class Mismatch(Exception):
    """A difference that does not start from what is held."""


class Client:
    """A client by the words of the contract: it holds what it applied."""

    def __init__(self, replica: str) -> None:
        self.version = 0
        self.digest = 0
        self.endpoints: dict[str, types_pb2.Endpoint] = {}
        self.protected = False
        self.connect(replica)

    def apply(self, resource: types_pb2.Resource) -> None:
        """Raises Mismatch, and holds what it held."""
        news = resource.endpoints
        if resource.HasField("endpoints") and not news.full and news.base != self.version:
            raise Mismatch(f"starts from v{news.base}, held is v{self.version}")
        held = {} if news.full or not resource.HasField("endpoints") else dict(self.endpoints)
        for id in news.removed:
            held.pop(id, None)
        held.update((endpoint.id, endpoint) for endpoint in news.changed)
        if len(held) != news.total:
            raise Mismatch(f"{len(held)} endpoints, should be {news.total}")
        self.version, self.digest, self.protected = resource.version, resource.digest, news.protected
        self.endpoints = held

    def connect(self, replica: str) -> None:
        """A new stream, which names what is held."""
        self.replica = replica
        self.subscriptions = Subscriptions()
        self.subscriptions.subscribe(ORDERS, self.version, self.digest)

    def __str__(self) -> str:
        held = " ".join(
            f"{id}:{told.weight}:{types_pb2.Health.Name(told.health)[7:].lower()}"
            for id, told in sorted(self.endpoints.items())
        )
        return f"holds v{self.version} [{held}]{' protected' if self.protected else ''}"


class Town:
    """A store, replicas and clients; nothing moves by itself."""

    def __init__(self) -> None:
        self.revision = 1
        self.records: dict[Ref, Stored] = {}
        self.history: list[Event] = []
        self.views: dict[str, View] = {}
        self.clients: dict[str, Client] = {}

    def play(self, command: Command) -> Iterator[str]:
        name = command.words[1] if len(command.words) > 1 else ""
        match command.verb:
            case "register":
                port = int(command.number("port", 8000))
                weight = int(command.number("weight", 100))
                record = Instance("default", "orders", name, "10.0.0.1", port, weight=weight)
                yield self._write(record.ref, record)
            case "deregister":
                yield self._write(Ref(Kind.INSTANCE, ("default", "orders", name)), None)
            case "drain":
                yield self._write(Ref(Kind.DESIRED, ("default", "orders", name)), Desired(drain=True))
            case "suspect":
                claim = Protection("r1", tuple(command.words[1:]), "many broke")
                yield self._write(Ref(Kind.PROTECTION, ("default", "orders", "r1")), claim)
            case "trust":
                yield self._write(Ref(Kind.PROTECTION, ("default", "orders", "r1")), None)
            case "replica":
                self.views[name] = View()
                yield from self._list(name)
            case "list":
                yield from self._list(name)
            case "watch":
                yield from self._watch(name)
            case "client":
                self.clients[name] = Client(command.words[2])
            case "move":
                self.clients[name].connect(command.words[2])
            case "forget":
                self.clients[name].version, self.clients[name].endpoints = 0, {}
            case "take":
                yield from self._take(name, command.options.get("then", "ack"))
            case "show":
                yield f"{name} {self.clients[name]}"
            case unknown:
                raise AssertionError(f"no such command: {unknown}")

    def _write(self, ref: Ref, record: Record | None) -> str:
        self.revision += 1
        stored = None
        if record is None:
            self.records.pop(ref, None)
        else:
            before = self.records.get(ref)
            stored = Stored(ref, record, before.created if before else self.revision, self.revision, 7)
            self.records[ref] = stored
        self.history.append(Event(ref, stored, self.revision))
        return f"revision {self.revision}"

    def _list(self, replica: str) -> Iterator[str]:
        view = self.views[replica]
        yield from self._told(replica, view.load(self.revision, list(self.records.values())))

    def _watch(self, replica: str) -> Iterator[str]:
        view = self.views[replica]
        changed: set[ResourceName] = set()
        for event in self.history:
            if event.revision > view.revision:
                changed |= view.apply(event.revision, [event])
        yield from self._told(replica, changed)

    def _told(self, replica: str, changed: set[ResourceName]) -> Iterator[str]:
        for client in self.clients.values():
            if client.replica == replica:
                for name in changed:
                    client.subscriptions.enqueue(name, 0.0)
        yield f"{replica} at {self.views[replica].revision}, changed: {', '.join(map(str, sorted(changed))) or 'nothing'}"

    def _take(self, name: str, then: str) -> Iterator[str]:
        client = self.clients[name]
        view = self.views[client.replica]
        nonce, outgoing = client.subscriptions.take(view, 0.0)
        if not outgoing:
            yield "waits for its replica" if client.subscriptions.pending else "nothing to send"
            return
        raw = Encoder(view).delta(nonce, outgoing)
        (resource,) = mesh_pb2.ServerMessage.FromString(raw).delta.resources
        yield f"delta {nonce}: {_shown(resource)}"
        if then == "nack":
            client.subscriptions.nack(nonce, [(ORDERS, "not this one", False)])
            yield "refused"
            return
        try:
            client.apply(resource)
        except Mismatch as mismatch:
            client.subscriptions.nack(nonce, [(ORDERS, str(mismatch), True)])
            yield f"does not fit: {mismatch}"
            return
        client.subscriptions.ack(nonce)
        yield str(client)


def _shown(resource: types_pb2.Resource) -> str:
    if resource.WhichOneof("body") is None:
        return f"v{resource.version}, does not exist"
    endpoints = resource.endpoints
    parts = [f"+{endpoint.id}" for endpoint in endpoints.changed] + [f"-{id}" for id in endpoints.removed]
    what = "whole" if endpoints.full else f"since v{endpoints.base}"
    return f"v{resource.version}, {what}: {' '.join(sorted(parts)) or 'no endpoint'}, {endpoints.total} in all"


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.txt")))
def test_transcript(name: str, rewrite: bool) -> None:
    check(HERE / name, Town(), rewrite=rewrite)
