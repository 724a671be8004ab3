"""Services are found and called, and each way of dying is felt by whoever calls, within its bound."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support.town.client import Client
from tests.support.town.plugin import Build
from tests.support.town.process import until
from tests.support.town.town import Town, free_port

GRACE, INTERVAL, WINDOW, HOLD = 0.4, 0.5, 2.0, 4.0
# What a busy machine may add to a bound. The bounds themselves are measured in tests/chaos.
SLACK = 8.0


@pytest.fixture(scope="module")
def town(towns: Build) -> Town:
    town = towns(grace=GRACE, heartbeat_interval=INTERVAL, heartbeat_window=WINDOW, guard_hold=HOLD)
    town.add_replicas()
    return town


@pytest.fixture(scope="module")
def shopper(town: Town) -> Client:
    return town.client("shopper")


@pytest.fixture(scope="module", autouse=True)
def keeper(town: Town) -> None:
    """Whoever dies leaves somebody behind."""
    keeper = town.client("keeper")
    for port, service in enumerate(("lamps", "chairs", "clocks"), 1000):
        keeper.register(service, "keeper", port)


def gone(shopper: Client, service: str, id: str, since: float) -> float:
    """Seconds from ``since`` until the shopper knew."""
    until(lambda: id not in shopper.view(service)["endpoints"], f"{id} is gone from the shopper's view")
    return time.monotonic() - since


def test_a_service_registers_is_found_and_is_called(town: Town, shopper: Client) -> None:
    [teapots] = town.fleet("teapots", 1, zone="kitchen")
    shopper.call("teapots", rate=50)
    calls = shopper.more_calls(20)
    assert {call.tried for call in calls} == {("teapots-0",)}
    assert [call.error for call in calls if call.error] == []
    seen = shopper.view("teapots")["endpoints"]["teapots-0"]
    assert seen == {
        "address": "127.0.0.1",
        "port": teapots.serves["teapots-0"],
        "weight": 100,
        "health": 1,
        "zone": "kitchen",
    }
    assert town.replicas[0].healths("teapots") == {"teapots-0": "HEALTHY"}
    assert town.archive.instances("teapots")["teapots-0"].lease
    shopper.rest()


def test_an_instance_that_says_goodbye_is_gone_at_once(town: Town, shopper: Client) -> None:
    [leaving] = town.fleet("lamps", 1)
    shopper.view("lamps")
    told = leaving.send(signal.SIGTERM)
    until(lambda: shopper.view("lamps")["endpoints"]["lamps-0"]["health"] == 2, "the shopper sees it drain")
    assert leaving.popen.wait(20) == 0
    assert gone(shopper, "lamps", "lamps-0", told) < 1.0 + SLACK
    assert set(town.archive.instances("lamps")) == {"keeper"}


def test_a_killed_instance_is_gone_after_the_grace(town: Town, shopper: Client) -> None:
    [dying] = town.fleet("chairs", 1)
    shopper.view("chairs")
    assert gone(shopper, "chairs", "chairs-0", dying.kill()) < GRACE + SLACK
    assert set(town.archive.instances("chairs")) == {"keeper"}


def test_a_frozen_instance_is_gone_after_the_window_and_comes_back_when_it_thaws(town: Town, shopper: Client) -> None:
    [freezing] = town.fleet("clocks", 1)
    shopper.view("clocks")
    assert gone(shopper, "clocks", "clocks-0", freezing.freeze()) < WINDOW + SLACK
    until(lambda: set(town.archive.instances("clocks")) == {"keeper"}, "the store agrees")
    freezing.thaw()
    until(lambda: "clocks-0" in shopper.view("clocks")["endpoints"], "it is back in the shopper's view")
    until(lambda: freezing.do("registered") == {"clocks-0": True}, "it knows that it is registered")


def test_more_than_half_of_a_service_cut_off_at_once_is_suspected_and_not_removed(town: Town, shopper: Client) -> None:
    fleet = town.fleet("spoons", 5)
    replica = town.replicas[0]
    shopper.view("spoons")
    frozen = [member.freeze() for member in fleet[:4]]
    until(lambda: replica.service("spoons")["suspect"] == 4, "the four are suspect")
    assert (replica.service("spoons")["protected"], replica.service("spoons")["instances"]) == (True, 5)
    seen = until(lambda: (view := shopper.view("spoons"))["protected"] and view, "the shopper is told")
    assert len(seen["endpoints"]) == 5
    fleet[0].thaw()
    until(lambda: replica.service("spoons")["suspect"] == 3, "whoever speaks again is not suspect any more")
    until(lambda: replica.service("spoons")["instances"] == 2, "the guard lets the dead go after its time")
    assert time.monotonic() - frozen[-1] > WINDOW - INTERVAL + HOLD
    until(lambda: not replica.service("spoons")["protected"], "the protection clears by itself")
    assert set(replica.healths("spoons").values()) == {"HEALTHY"}
    assert set(town.archive.instances("spoons")) == {"spoons-0", "spoons-4"}
    until(lambda: set(shopper.view("spoons")["endpoints"]) == {"spoons-0", "spoons-4"}, "the shopper agrees")


def test_an_operators_intent_outlives_the_instance(town: Town, shopper: Client) -> None:
    [dying] = town.fleet("forks", 1)
    assert town.trimtab("drain", "forks/forks-0").popen.wait(20) == 0
    until(lambda: shopper.view("forks")["endpoints"]["forks-0"]["health"] == 2, "the shopper sees it drained")
    dying.kill()
    until(lambda: not town.replicas[0].instances("forks"), "it is gone")
    town.client("forks-again").serve("forks", "forks-0", free_port())
    until(lambda: "forks-0" in shopper.view("forks")["endpoints"], "its successor is known")
    assert shopper.view("forks")["endpoints"]["forks-0"]["health"] == 2
