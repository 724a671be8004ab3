"""Two replicas on one etcd are one mesh: their clients see every change and all configuration, and a client that moves
between them takes its instances along.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from controlplane.core.model import Kind
from tests.support.town.client import Client
from tests.support.town.plugin import Build
from tests.support.town.process import until
from tests.support.town.replica import Replica
from tests.support.town.town import Town
from tests.support.town.wire import wire

GRACE = 0.4


@pytest.fixture(scope="module")
def town(towns: Build) -> Town:
    town = towns(replica_ttl=3, adoption_grace=3, grace=GRACE, drain_spread=1.5)
    town.add_replicas(2)
    return town


@pytest.fixture(scope="module")
def seers(town: Town) -> list[Client]:
    """One client of each replica alone."""
    return [town.client(f"seer-{index}", servers=[address]) for index, address in enumerate(town.servers)]


@pytest.fixture(scope="module")
def witness(town: Town) -> Client:
    """Notes what a caller would see. It moves, too, when its replica is the one that goes."""
    return town.client("witness")


def both_see(seers: list[Client], service: str, expected: dict[str, tuple[int, int]]) -> None:
    """Both clients know exactly these instances, with this weight and health."""

    def seen(seer: Client) -> dict[str, tuple[int, int]]:
        return {id: (e["weight"], e["health"]) for id, e in seer.view(service)["endpoints"].items()}

    for seer in seers:
        until(lambda seer=seer: seen(seer) == expected, f"{seer.name} sees {expected}")  # type: ignore[misc]


def home(town: Town, client: Client) -> Replica:
    """The replica on which a client's stream is, or was last."""
    name = client.status()["replica"]
    return next(replica for replica in town.replicas if name.startswith(f"{replica.name}-"))


@contextmanager
def moves_without_a_trace(
    town: Town, client: Client, witness: Client, service: str, instances: set[str]
) -> Iterator[Replica]:
    """Inside, the client is driven from its replica; then every write to etcd meanwhile is judged."""
    before, old = client.status(), home(town, client)
    created = {stored.ref: stored.created for stored in town.archive.records(Kind.INSTANCE)}
    with town.archive.recording() as recording:
        yield old
        until(
            lambda: home(town, client) is not old and client.status()["connected"], "the client is at the other replica"
        )
        until(lambda: client.status()["session_state"] == "attached", "its session stands")
        after = client.status()
        [new] = [replica for replica in town.replicas if replica is not old]
        until(lambda: set(new.healths(service).values()) == {"HEALTHY"}, "the other replica shows it in good health")
    assert (after["session"], set(new.instances(service))) == (before["session"], instances)
    assert recording.of(Kind.INSTANCE) == []
    assert {stored.ref: stored.created for stored in town.archive.records(Kind.INSTANCE)} == created
    mine = [event for event in recording.of(Kind.SESSION) if f"/{before['session']}/" in event.key]
    assert len(mine) == 1
    assert mine[0].value is not None
    assert json.loads(mine[0].value.value)["replica"] == after["replica"]
    # A witness that moves on, too, and misses nothing is told nothing.
    assert {tuple(ids) for ids in witness.do("witnessed", service=service)} <= {tuple(sorted(instances))}


def test_clients_of_both_replicas_see_every_change(town: Town, seers: list[Client]) -> None:
    both_see(seers, "maps", {})
    near = town.client("near", servers=[town.servers[0]])
    far = town.client("far", servers=[town.servers[1]])
    near.register("maps", "near", 1001)
    far.register("maps", "far", 1002)
    both_see(seers, "maps", {"near": (100, 1), "far": (100, 1)})
    near.do("update", id="near", weight=7, state="unhealthy")
    both_see(seers, "maps", {"near": (7, 3), "far": (100, 1)})
    path = "/v1/namespaces/default/services/maps/instances/far:drain"
    town.replicas[0].http.post(path).raise_for_status()  # by the replica that it is not on
    both_see(seers, "maps", {"near": (7, 3), "far": (100, 2)})
    near.do("deregister", id="near")
    both_see(seers, "maps", {"far": (100, 2)})
    far.kill()
    both_see(seers, "maps", {})
    assert {name for name in town.replicas[0].clients() if name.startswith("seer")} == {"seer-0", "seer-1"}


def test_a_client_keeps_session_and_instances_when_its_replica_goes_and_when_it_dies(
    town: Town, seers: list[Client], witness: Client
) -> None:
    wanderer = town.client("wanderer")
    instances = {wanderer.register("wanderers", f"w{index}", 2000 + index) for index in range(5)}
    witness.do("wait_ready", service="wanderers", timeout=20)
    witness.do("witness", service="wanderers")
    with moves_without_a_trace(town, wanderer, witness, "wanderers", instances) as leaving:
        assert leaving.process.end() == 0
    leaving.start()
    leaving.ready()
    with moves_without_a_trace(town, wanderer, witness, "wanderers", instances) as dying:
        dying.process.kill()
    dying.start()
    dying.ready()
    both_see(seers, "wanderers", dict.fromkeys(instances, (100, 1)))


def test_a_client_that_was_cut_off_and_went_to_the_other_replica_is_not_ended_by_the_first(
    town: Town, witness: Client
) -> None:
    """The first one lives, and finds the stream broken: only the store can tell it that the session lives, too."""
    with wire(town.servers[0]) as first, wire(town.servers[1]) as second:
        cut_off = town.client("cut-off", servers=[first.address, second.address])
        instances = {cut_off.register("islands", "atoll", 4001)}
        witness.do("wait_ready", service="islands", timeout=20)
        witness.do("witness", service="islands")
        with moves_without_a_trace(town, cut_off, witness, "islands", instances) as old:
            (first, second)[town.replicas.index(old)].cut()
            ended = f"session {cut_off.status()['session']} lives on replica"
            until(lambda: ended in old.log.read_text(), "the old replica wanted to end it, and could not")
        cut_off.clear()


def test_who_dies_together_with_its_replica_is_removed_by_the_other_and_nobody_else_is(town: Town) -> None:
    doomed = town.client("doomed", servers=[town.servers[0]])
    doomed.register("twins", "doomed", 3001)
    saved = town.client("saved")
    saved.register("twins", "saved", 3002)
    created = town.archive.instances("twins")["saved"].created
    town.replicas[0].process.kill()
    doomed.kill()
    # Views follow etcd by its watch: what is gone from a view is gone from etcd before, and not the other way round.
    until(lambda: town.replicas[1].healths("twins") == {"saved": "HEALTHY"}, "the dead one is gone")
    left = town.archive.instances("twins")
    assert set(left) == {"saved"}
    assert left["saved"].created == created
    town.replicas[0].start()
    town.replicas[0].ready()


@pytest.fixture(scope="module")
def readers(town: Town) -> list[Client]:
    """One of each kind, each at a replica of its own, both following the file before there is one."""
    readers = [
        town.client(f"{face}-reader", face=face, servers=[server])
        for face, server in zip(("sync", "async"), town.servers, strict=True)
    ]
    for reader in readers:
        reader.do("follow", name="shop/app.yaml")
        assert reader.do("config") == {"greeting": "none", "limit": 0, "error": ""}
    return readers


def all_hold(readers: list[Client], greeting: str, limit: int) -> None:
    for reader in readers:
        until(
            lambda reader=reader: reader.do("config") == {"greeting": greeting, "limit": limit, "error": ""},  # type: ignore[misc]
            f"{reader.name} has {greeting!r} and {limit}",
        )


def test_a_release_reaches_sync_and_async_clients_of_both_replicas(town: Town, readers: list[Client]) -> None:
    town.replicas[0].publish("shop", "app.yaml", "greeting: hello\nlimit: 3\n")
    all_hold(readers, "hello", 3)
    town.replicas[1].publish("shop", "app.yaml", "greeting: hi\n")
    all_hold(readers, "hi", 0)


def test_a_bad_value_keeps_the_last_good_one_and_is_shown_as_a_refusal(town: Town, readers: list[Client]) -> None:
    town.replicas[0].publish("shop", "app.yaml", "greeting: good day\nlimit: 5\n")
    all_hold(readers, "good day", 5)
    town.replicas[0].publish("shop", "app.yaml", "greeting: never\nlimit: -1\n")
    for reader in readers:
        held = until(lambda reader=reader: (c := reader.do("config"))["error"] and c, f"{reader.name} refuses")  # type: ignore[misc]
        assert (held["greeting"], held["limit"]) == ("good day", 5)
        assert "limit" in held["error"]

    def refusing() -> dict[str, str]:
        clients = town.replicas[0].clients()
        return {name: c["refusals"][0]["reason"] for name, c in clients.items() if c["state"] == "NACK"}

    until(lambda: set(refusing()) == {reader.name for reader in readers}, "both are shown as refusing")
    assert all("limit" in reason for reason in refusing().values())
    shown = town.trimtab("get", "clients", "-o", "wide", name="get-clients")
    assert shown.popen.wait(30) == 0
    rows = [line for line in shown.tail().splitlines() if "NACK" in line]
    assert [("limit" in row, "-reader" in row) for row in rows] == [(True, True)] * 2

    town.replicas[1].publish("shop", "app.yaml", "greeting: good night\nlimit: 6\n")
    all_hold(readers, "good night", 6)
    until(lambda: not refusing(), "nobody refuses any more")
