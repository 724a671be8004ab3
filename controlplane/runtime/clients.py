"""Who is connected, to which replica, how far each client has got, and what it reports of those that it calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any, Protocol, TypeVar

from controlplane.core.resource import ResourceName
from controlplane.core.view import View
from controlplane.runtime.breakers import BreakerInfo
from controlplane.runtime.reported import MAX_TOLD, ReportFilter
from controlplane.runtime.traffic import Sums, Traffic

_TURN = 0.005  # seconds for which reports are looked at before others have their turn

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

    def breakers(self, wanted: ReportFilter) -> Iterator[BreakerInfo]:
        """Its circuits, as it reported them last."""
        ...

    def traffic(self, wanted: ReportFilter) -> Iterator[Traffic]:
        """Its calls to endpoints, as it reported them last."""
        ...


class Peers(Protocol):
    """Other replicas, by their gRPC addresses. All raise OSError or TimeoutError when one does not answer."""

    async def clients(self, address: str, following: Collection[ResourceName]) -> list[ClientInfo]:
        """Its clients; with ``following``, those that follow one of these."""
        ...

    async def breakers(self, address: str, wanted: ReportFilter) -> tuple[list[BreakerInfo], int]:
        """Its clients' circuits, and how many more there are."""
        ...

    async def traffic(self, address: str, wanted: ReportFilter, by_caller: bool) -> tuple[list[Traffic], int]:
        """Its clients' calls to endpoints, and how many more entries there are."""
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

    async def local_breakers(self, wanted: ReportFilter) -> tuple[list[BreakerInfo], int]:
        """What this replica's clients reported, worst first, and how many more there are than are told."""
        return await _worst([one async for one in self._reported(lambda stream: stream.breakers(wanted))], _badness)

    async def breakers(self, wanted: ReportFilter) -> tuple[list[BreakerInfo], int, list[str]]:
        """What every replica's clients reported, how many more there are, and the replicas that did not answer."""
        peers = self._others()
        answers, silent = await _gathered({id: self._peers.breakers(at, wanted) for id, at in peers.items()})
        found, omitted = await self.local_breakers(wanted)
        for id, (theirs, more) in answers:
            found += [breaker for breaker in theirs if breaker.replica == id]
            omitted += more
        return sorted(found, key=_badness), omitted, silent

    async def local_traffic(self, wanted: ReportFilter, by_caller: bool = False) -> tuple[list[Traffic], int]:
        """Calls to endpoints as this replica's clients reported them, worst first, and how many more entries there are.

        One entry for each endpoint, or ``by_caller`` for each client and endpoint.
        """
        reported = self._reported(lambda stream: stream.traffic(wanted))
        if by_caller:
            return await _worst([one async for one in reported], _harm)
        sums = Sums(self._replica)
        async for one in reported:
            sums.add(one)
        return await _worst(sums.told(), _harm)

    async def traffic(self, wanted: ReportFilter, by_caller: bool = False) -> tuple[list[Traffic], int, list[str]]:
        """The same of every replica's clients by callee and endpoint, and the replicas that did not answer."""
        peers = self._others()
        answers, silent = await _gathered({id: self._peers.traffic(at, wanted, by_caller) for id, at in peers.items()})
        found, omitted = await self.local_traffic(wanted, by_caller)
        for id, (theirs, more) in answers:
            found += [one for one in theirs if one.replica == id]
            omitted += more
        if not by_caller:
            sums = Sums()
            for one in found:
                sums.add(one)
            found = sums.told()
        return sorted(found, key=_place), omitted, silent

    async def _reported(self, told: Callable[[Connected], Iterator[T]]) -> AsyncIterator[T]:
        """What all streams tell, in turns that hold nobody up."""
        clock = asyncio.get_running_loop().time
        until = clock() + _TURN
        for stream in tuple(self._streams):
            for one in told(stream):
                yield one
            if clock() >= until:
                await asyncio.sleep(0)
                until = clock() + _TURN

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


async def _worst(found: list[T], rank: Callable[[T], Any]) -> tuple[list[T], int]:
    """The first of them by ``rank``, as many as are told, and how many more there are."""
    if len(found) <= MAX_TOLD:
        return sorted(found, key=rank), 0
    # In a thread: to find the worst of what thousands of clients report takes longer than a push may wait.
    return await asyncio.to_thread(nsmallest, MAX_TOLD, found, rank), len(found) - MAX_TOLD


def _badness(breaker: BreakerInfo) -> tuple[int, str, str, str, str, str, str]:
    return breaker.rank


def _harm(traffic: Traffic) -> tuple[object, ...]:
    return traffic.rank


def _place(traffic: Traffic) -> tuple[str, ...]:
    return traffic.place
