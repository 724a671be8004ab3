"""Who is connected, to which replica, how far each client has got, and what it reports of those that it calls."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any, Protocol, TypeVar

from controlplane.core.resource import ResourceName
from controlplane.core.view import View
from controlplane.runtime.breakers import MAX_TOLD, BreakerFilter, BreakerInfo

_AT_ONCE = 100  # streams asked for their breakers in one turn of the loop: some milliseconds

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Load:
    """A process's own account; shares 0 to 1, negative when unknown."""

    cpu: float = -1.0
    memory: float = -1.0
    serving: int = 0
    calling: int = 0


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """One client stream. Ages in seconds, ``connected_at`` in Unix time.

    ``followed``: of the resources that were asked for, those that it follows, and whether it is behind on them.
    """

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
    followed: tuple[tuple[ResourceName, bool], ...] = ()


class Connected(Protocol):
    """A stream, as far as listings know it."""

    def info(self, following: Collection[ResourceName] = ()) -> ClientInfo:
        """What is known of the client; ``followed`` tells of those in ``following``."""
        ...

    def breakers(self, wanted: BreakerFilter) -> Iterator[BreakerInfo]:
        """Its circuits, as it reported them last."""
        ...


class Peers(Protocol):
    """Other replicas, by their gRPC addresses. All raise OSError or TimeoutError when one does not answer."""

    async def clients(self, address: str, following: Collection[ResourceName]) -> list[ClientInfo]:
        """Its clients; with ``following``, those that follow one of these."""
        ...

    async def breakers(self, address: str, wanted: BreakerFilter) -> tuple[list[BreakerInfo], int]:
        """Its clients' circuits, and how many more there are."""
        ...


class Clients:
    """The streams of this replica, and by asking the others, of all."""

    def __init__(self, view: View, replica: str, peers: Peers) -> None:
        self._view = view
        self._replica = replica
        self._peers = peers
        self._streams: set[Connected] = set()

    def add(self, stream: Connected) -> None:
        """A stream opened."""
        self._streams.add(stream)

    def remove(self, stream: Connected) -> None:
        """A stream closed."""
        self._streams.discard(stream)

    def local(self, following: Collection[ResourceName] = ()) -> list[ClientInfo]:
        """This replica's clients; with ``following``, those that follow one of these."""
        found = [stream.info(following) for stream in self._streams]
        return [info for info in found if info.followed] if following else found

    async def all(self, following: Collection[ResourceName] = ()) -> tuple[list[ClientInfo], list[str]]:
        """Every replica's clients, and the replicas that did not answer."""
        peers = self._others()
        answers, silent = await _gathered({id: self._peers.clients(at, following) for id, at in peers.items()})
        found = self.local(following)
        for id, clients in answers:
            # Another replica may have started on the address of one that died a moment ago: it speaks for itself alone.
            found += [client for client in clients if client.replica == id]
        return sorted(found, key=lambda client: (client.namespace, client.name, client.node_id)), silent

    async def local_breakers(self, wanted: BreakerFilter) -> tuple[list[BreakerInfo], int]:
        """What this replica's clients reported, worst first, and how many more there are than are told."""
        found: list[BreakerInfo] = []
        for number, stream in enumerate(tuple(self._streams), 1):
            found.extend(stream.breakers(wanted))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        if len(found) <= MAX_TOLD:
            return sorted(found, key=_rank), 0
        # In a thread: of the breakers of thousands of clients, to find the worst takes longer than a push may wait.
        worst = await asyncio.to_thread(nsmallest, MAX_TOLD, found, _rank)
        return worst, len(found) - MAX_TOLD

    async def breakers(self, wanted: BreakerFilter) -> tuple[list[BreakerInfo], int, list[str]]:
        """What every replica's clients reported, how many more there are, and the replicas that did not answer."""
        peers = self._others()
        answers, silent = await _gathered({id: self._peers.breakers(at, wanted) for id, at in peers.items()})
        found, omitted = await self.local_breakers(wanted)
        for id, (theirs, more) in answers:
            found += [breaker for breaker in theirs if breaker.replica == id]
            omitted += more
        return sorted(found, key=_rank), omitted, silent

    def _others(self) -> dict[str, str]:
        return {peer.id: peer.grpc_address for peer in self._view.replicas() if peer.id != self._replica}


async def _gathered(asked: dict[str, Coroutine[Any, Any, T]]) -> tuple[list[tuple[str, T]], list[str]]:
    """Answers by replica, and who gave none."""
    answers = await asyncio.gather(*asked.values(), return_exceptions=True)
    told: list[tuple[str, T]] = []
    silent: list[str] = []
    for id, answer in zip(asked, answers, strict=True):
        if isinstance(answer, (OSError, TimeoutError)):
            silent.append(id)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            told.append((id, answer))
    return told, silent


def _rank(breaker: BreakerInfo) -> tuple[int, str, str, str, str, str, str]:
    return breaker.rank
