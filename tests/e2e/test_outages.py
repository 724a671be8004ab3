"""Nobody who calls notices that the control plane or etcd is away, and when they are back nothing was lost.

One town and one stream of calls for all of it. The long outages are in tests/chaos.
"""

from __future__ import annotations

import signal
import time

import pytest

from tests.support.town.client import Client
from tests.support.town.oath import nothing_is_lost
from tests.support.town.plugin import Build
from tests.support.town.process import until
from tests.support.town.town import Town

OUTAGE = 2.0
RATE = 25


@pytest.fixture(scope="module")
def town(towns: Build) -> Town:
    town = towns(adoption_grace=10)
    town.add_replicas()
    return town


@pytest.fixture(scope="module")
def fleet(town: Town) -> list[Client]:
    return town.fleet("orders", 3)


@pytest.fixture(scope="module")
def callers(town: Town, fleet: list[Client]) -> list[Client]:
    """A caller of each kind, both at work."""
    callers = [town.client(f"{face}-caller", face=face) for face in ("sync", "async")]
    for caller in callers:
        caller.call("orders", rate=RATE, pause=0.01)
        caller.more_calls(20)
    return callers


def test_a_control_plane_that_dies_and_comes_back_costs_no_call_and_no_session(
    town: Town, fleet: list[Client], callers: list[Client]
) -> None:
    with nothing_is_lost(town, "orders", fleet, callers) as calls:
        [replica] = town.replicas
        replica.process.kill()
        time.sleep(OUTAGE)
        assert all(not member.status()["connected"] for member in fleet)
        replica.start()
        replica.ready()
    assert len(calls) > OUTAGE * RATE


def test_an_etcd_that_dies_and_comes_back_costs_no_call_and_no_session(
    town: Town, fleet: list[Client], callers: list[Client]
) -> None:
    with nothing_is_lost(town, "orders", fleet, callers) as calls:
        town.etcd.kill()
        time.sleep(OUTAGE)
        assert set(town.replicas[0].healths("orders").values()) == {"HEALTHY"}
        town.start_etcd()
    assert len(calls) > OUTAGE * RATE


def test_a_new_process_calls_from_its_snapshot_when_nothing_else_is_left(
    town: Town, fleet: list[Client], callers: list[Client]
) -> None:
    known = callers[0].view("orders")
    assert len(known["endpoints"]) == 3
    for caller in callers:
        assert [call for call in caller.rest() if call.error] == []
        assert caller.end() == 0  # whoever comes to an end knows the mesh when it starts again
    town.replicas[0].process.kill()
    town.etcd.kill()
    for face in ("sync", "async"):
        orphan = town.client(f"{face}-orphan", face=face)
        orphan.call("orders", rate=RATE)
        assert [call for call in orphan.more_calls(20) if call.error] == []
        seen = orphan.view("orders")
        assert (seen["stale"], seen["endpoints"]) == (True, known["endpoints"])
        assert orphan.status()["stale"]
    town.start_etcd()
    town.replicas[0].start()
    for face in ("sync", "async"):
        orphan = town.clients[f"{face}-orphan"]
        until(lambda orphan=orphan: not orphan.view("orders")["stale"], "what it knows is confirmed")  # type: ignore[misc]
        assert [call for call in orphan.rest() if call.error] == []
    until(lambda: set(town.archive.instances("orders")) == {m.name for m in fleet}, "everybody is still registered")


def test_a_rolling_restart_of_every_instance_fails_no_call(town: Town, fleet: list[Client]) -> None:
    callers = [town.client(f"{face}-shopper", face=face) for face in ("sync", "async")]
    for caller in callers:
        caller.call("orders", rate=RATE, pause=0.02)
    for member in fleet:
        port = member.serves[member.name]
        assert member.end(signal.SIGTERM) == 0
        again = town.client(f"{member.name}-again")
        again.serve("orders", member.name, port)
    for caller in callers:
        calls = caller.more_calls(50) + caller.rest()
        assert [call for call in calls if call.error] == []
        assert {call.tried[-1] for call in calls} == {member.name for member in fleet}
