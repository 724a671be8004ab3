"""Who is connected, to which replica, and how far each client has got."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from controlplane.core.view import View


@dataclass(frozen=True, slots=True)
class Load:
    """A process's own account; shares 0 to 1, negative when unknown."""

    cpu: float = -1.0
    memory: float = -1.0
    serving: int = 0
    calling: int = 0


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """One client stream. Ages in seconds, ``connected_at`` in Unix time."""

    node_id: str
    name: str
    namespace: str
    sdk: str
    host: str
    pid: int
    zone: str
    peer: str
    replica: str
    session: str
    connected_at: float
    last_heartbeat_age: float
    subscriptions: int
    acked: int
    behind: bool
    nacks: tuple[tuple[str, str], ...]
    load: Load


class Connected(Protocol):
    """A stream, as far as listings know it."""

    def info(self) -> ClientInfo:
        """What is known of the client."""
        ...


AskPeer = Callable[[str], Awaitable[list[ClientInfo]]]


class Clients:
    """The streams of this replica, and by asking the others, of all."""

    def __init__(self, view: View, replica: str, ask_peer: AskPeer) -> None:
        """``ask_peer`` lists the clients of the replica at a gRPC address; it raises OSError or TimeoutError."""
        self._view = view
        self._replica = replica
        self._ask_peer = ask_peer
        self._streams: set[Connected] = set()

    def add(self, stream: Connected) -> None:
        """A stream opened."""
        self._streams.add(stream)

    def remove(self, stream: Connected) -> None:
        """A stream closed."""
        self._streams.discard(stream)

    def local(self) -> list[ClientInfo]:
        """This replica's clients."""
        return [stream.info() for stream in self._streams]

    async def all(self) -> tuple[list[ClientInfo], list[str]]:
        """Every replica's clients, and the replicas that did not answer."""
        peers = [replica for replica in self._view.replicas() if replica.id != self._replica]
        answers = await asyncio.gather(*(self._ask_peer(p.grpc_address) for p in peers), return_exceptions=True)
        found, silent = self.local(), []
        for peer, answer in zip(peers, answers, strict=True):
            if isinstance(answer, (OSError, TimeoutError)):
                silent.append(peer.id)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                # Another replica may have started on the address of one that died a moment ago: it speaks for itself alone.
                found += [client for client in answer if client.replica == peer.id]
        return sorted(found, key=lambda client: (client.namespace, client.name, client.node_id)), silent
