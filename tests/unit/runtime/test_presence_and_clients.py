"""How replicas know of each other, and whom they serve."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import pytest

from controlplane.core.model import Kind, Ref, Replica
from controlplane.core.resource import ResourceKind, ResourceName
from controlplane.core.view import View
from controlplane.runtime.backoff import Backoff
from controlplane.runtime.breakers import BreakerInfo, BreakerState
from controlplane.runtime.clients import ClientInfo, Clients, Load
from controlplane.runtime.presence import Presence
from controlplane.runtime.readiness import Readiness
from controlplane.runtime.reported import ReportFilter
from controlplane.runtime.traffic import Traffic
from tests.unit.core.nouns import put
from tests.unit.runtime.house import House, Town, until

Build = Callable[..., Awaitable[House]]

SOMEONE = ClientInfo(
    node_id="c1",
    name="checkout",
    namespace="default",
    sdk="",
    host="",
    pid=1,
    zone="",
    peer="",
    replica="one",
    session="",
    connected_at=0.0,
    last_heartbeat_age=0.0,
    subscriptions=0,
    acked=0,
    behind=False,
    nacks=(),
    load=Load(),
)


async def test_a_replica_that_was_thought_dead_announces_itself_again(house: House, store: Town) -> None:
    presence = Presence(house.ledger, "fast", ttl=0.3)
    running = asyncio.create_task(presence.run(Replica("fast", "", "", "", 0.0)))
    await until(lambda: presence.lease != 0)
    first = presence.lease
    await store.revoke(first)
    await until(lambda: presence.lease not in {0, first})
    await until(lambda: house.view.record(presence.ref) is not None)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await presence.withdraw()
    await until(lambda: house.view.record(presence.ref) is None)


async def test_a_replica_that_cannot_reach_the_store_keeps_trying(house: House, store: Town) -> None:
    presence = Presence(house.ledger, "late", ttl=0.3)
    store.away = True
    running = asyncio.create_task(presence.run(Replica("late", "", "", "", 0.0)))
    await asyncio.sleep(0.1)
    assert presence.lease == 0
    store.away = False
    await until(lambda: presence.lease != 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_one_that_was_never_announced_has_nothing_to_withdraw(house: House) -> None:
    await Presence(house.ledger, "never", ttl=1.0).withdraw()


class Someone:
    """A stream, as far as listings know it."""

    def __init__(self, info: ClientInfo, *breakers: BreakerInfo, traffic: tuple[Traffic, ...] = ()) -> None:
        self._info = info
        self._breakers = breakers
        self._traffic = traffic

    def info(self, following: Collection[ResourceName] = ()) -> ClientInfo:
        return replace(self._info, followed=tuple((name, behind) for name, behind in FOLLOWED if name in following))

    def breakers(self, wanted: ReportFilter) -> Iterator[BreakerInfo]:
        return (one for one in self._breakers if wanted.callee(one.namespace, one.service))

    def traffic(self, wanted: ReportFilter) -> Iterator[Traffic]:
        return (one for one in self._traffic if wanted.callee(one.namespace, one.service))


class Others:
    """The other replicas: what each answers, or how it fails."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers
        self.asked: list[str] = []

    async def clients(self, address: str, following: Collection[ResourceName]) -> list[ClientInfo]:
        return self._answer(address)  # type: ignore[no-any-return]

    async def breakers(self, address: str, wanted: ReportFilter) -> tuple[list[BreakerInfo], int]:
        return self._answer(address)  # type: ignore[no-any-return]

    async def traffic(self, address: str, wanted: ReportFilter, by_caller: bool) -> tuple[list[Traffic], int]:
        return self._answer(address)  # type: ignore[no-any-return]

    def _answer(self, address: str) -> Any:
        self.asked.append(address)
        answer = self._answers[address.partition(":")[0]]
        if isinstance(answer, Exception):
            raise answer
        return answer


ORDERS = ResourceName(ResourceKind.POLICY, "shop/orders")
FOLLOWED = ((ORDERS, True),)
OPEN = BreakerInfo(
    node="c1",
    caller="checkout",
    caller_namespace="shop",
    replica="one",
    namespace="shop",
    service="orders",
    endpoint="a",
    method="",
    state=BreakerState.OPEN,
    age=3.0,
    calls=20,
    failure_ratio=0.6,
    slow_ratio=0.0,
    retry_after=12.0,
)

CALLS = Traffic(
    node="c1",
    caller="checkout",
    caller_namespace="shop",
    replica="one",
    namespace="shop",
    service="orders",
    endpoint="a",
    callers=1,
    calls=10.0,
    failures=1.0,
    seconds=0.5,
    in_flight=2,
    ejecting=0,
    ejected_by=(),
    age=1.0,
)


def view_of(*replicas: str) -> View:
    view = View()
    view.load(1, [])
    for revision, id in enumerate(replicas, 2):
        view.apply(revision, [put(Replica(id, f"{id}:1", "", "", 0.0), Ref(Kind.REPLICA, (id,)), revision)])
    return view


async def test_clients_of_all_replicas_are_listed_and_silent_replicas_named() -> None:
    others = Others(two=[replace(SOMEONE, node_id="c0", replica="two")], three=TimeoutError(), four=OSError("no route"))
    clients = Clients(view_of("one", "two", "three", "four"), "one", others)
    here = Someone(SOMEONE)
    clients.add(here)
    found, silent = await clients.all()
    assert [client.node_id for client in found] == ["c0", "c1"]
    assert sorted(silent) == ["four", "three"]
    assert "one:1" not in others.asked, "it does not ask itself"
    clients.remove(here)
    assert clients.local() == []


async def test_a_replica_on_the_address_of_one_that_died_does_not_count_its_clients_twice() -> None:
    # What listens at the dead one's address is this replica.
    others = Others(dead=[SOMEONE])
    clients = Clients(view_of("dead", "one"), "one", others)
    clients.add(Someone(SOMEONE))
    found, silent = await clients.all()
    assert ([client.node_id for client in found], silent) == (["c1"], [])


async def test_a_bug_while_asking_is_not_taken_for_silence() -> None:
    with pytest.raises(ValueError, match="two:1"):
        await Clients(view_of("two"), "one", Others(two=ValueError("two:1"))).all()


async def test_of_those_who_follow_a_resource_each_tells_whether_it_is_behind() -> None:
    clients = Clients(view_of("one"), "one", Others())
    clients.add(Someone(SOMEONE))
    assert [info.followed for info in clients.local()] == [()]
    assert [info.followed for info in clients.local([ORDERS])] == [((ORDERS, True),)]
    assert clients.local([ResourceName(ResourceKind.POLICY, "shop/stock")]) == []


async def test_breakers_of_all_replicas_are_told_worst_first() -> None:
    elsewhere = OPEN._replace(node="c0", replica="two", state=BreakerState.HALF_OPEN)
    foreign = OPEN._replace(node="c9", replica="three")
    others = Others(two=([elsewhere, foreign], 7), three=OSError("no route"))
    clients = Clients(view_of("one", "two", "three"), "one", others)
    closed = OPEN._replace(state=BreakerState.CLOSED, endpoint="b")
    clients.add(Someone(SOMEONE, closed, OPEN))
    found, omitted, silent = await clients.breakers(ReportFilter())
    assert found == [OPEN, elsewhere, closed]
    assert (omitted, silent) == (7, ["three"])


async def test_a_replica_tells_the_worst_and_how_many_more_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.runtime.clients.MAX_TOLD", 2)
    clients = Clients(view_of("one"), "one", Others())
    closed = [OPEN._replace(state=BreakerState.CLOSED, endpoint=f"e{number}") for number in range(3)]
    clients.add(Someone(SOMEONE, *closed, OPEN))
    assert await clients.local_breakers(ReportFilter()) == ([OPEN, closed[0]], 2)
    assert await clients.local_breakers(ReportFilter(service="stock")) == ([], 0)


async def test_calls_to_an_endpoint_are_summed_over_clients_and_replicas() -> None:
    # Another replica told of its own clients together already.
    elsewhere = CALLS._replace(
        node="", caller="", caller_namespace="", replica="two", callers=7, calls=30.0, seconds=4.5, age=4.0,
        ejecting=6, ejected_by=("a", "b", "c", "d", "e"),
    )  # fmt: skip
    foreign = elsewhere._replace(replica="three")
    others = Others(two=([elsewhere, foreign], 7), three=OSError("no route"))
    clients = Clients(view_of("one", "two", "three"), "one", others)
    clients.add(Someone(SOMEONE, traffic=(CALLS, CALLS._replace(endpoint="b"))))
    ejecting = CALLS._replace(node="c2", caller="billing", ejecting=1, ejected_by=("billing",))
    clients.add(Someone(SOMEONE, traffic=(ejecting,)))
    found, omitted, silent = await clients.traffic(ReportFilter())
    assert [one.endpoint for one in found] == ["a", "b"]
    together = found[0]
    assert (together.callers, together.calls, together.failures, together.in_flight) == (9, 50.0, 3.0, 6)
    assert (together.latency, together.failure_ratio, together.age) == (0.11, 0.06, 4.0)
    assert (together.ejecting, together.ejected_by) == (7, ("a", "b", "billing", "c", "d"))
    assert (together.node, together.caller, together.caller_namespace, together.replica) == ("", "", "", "")
    assert (omitted, silent) == (7, ["three"])


async def test_calls_may_be_told_for_each_client_alone() -> None:
    elsewhere = CALLS._replace(node="c0", caller="billing", replica="two")
    clients = Clients(view_of("one", "two"), "one", Others(two=([elsewhere], 0)))
    clients.add(Someone(SOMEONE, traffic=(CALLS,)))
    found, _, _ = await clients.traffic(ReportFilter(), by_caller=True)
    assert found == [elsewhere, CALLS]
    assert (await clients.local_traffic(ReportFilter(), by_caller=True))[0] == [CALLS]


async def test_a_replica_tells_of_the_calls_that_fare_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.runtime.clients.MAX_TOLD", 3)
    clients = Clients(view_of("one"), "one", Others())
    well = CALLS._replace(failures=0.0)
    ejected = well._replace(endpoint="ejected", ejecting=1, ejected_by=("checkout",))
    failing = CALLS._replace(endpoint="failing")
    busy = well._replace(endpoint="busy", calls=90.0)
    clients.add(Someone(SOMEONE, traffic=(well, busy, failing, ejected)))
    found, omitted = await clients.local_traffic(ReportFilter())
    assert ([one.endpoint for one in found], omitted) == (["ejected", "failing", "busy"], 1)
    assert await clients.local_traffic(ReportFilter(service="stock")) == ([], 0)


async def test_waiting_doubles_up_to_its_limit_and_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(delay: float) -> None:
        slept.append(delay)

    monkeypatch.setattr("controlplane.runtime.backoff.asyncio.sleep", sleep)
    backoff = Backoff(first=1.0, limit=4.0)
    for _ in range(5):
        await backoff.wait()
    backoff.reset()
    await backoff.wait()
    bounds = [1.0, 2.0, 4.0, 4.0, 4.0, 1.0]
    assert all(bound / 2 <= delay <= bound for delay, bound in zip(slept, bounds, strict=True))


def test_a_replica_is_ready_from_its_first_listing_until_it_stops() -> None:
    readiness = Readiness()
    assert not readiness.ready
    assert readiness.reasons == ["the view has not been loaded from the store yet"]
    readiness.started = True
    assert (readiness.ready, readiness.reasons) == (True, [])
    readiness.stopping = True
    assert not readiness.ready
    assert readiness.reasons == ["shutting down"]
