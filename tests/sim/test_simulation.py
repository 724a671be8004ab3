"""The default pipeline under load, faults and storms: shortened forms of what ``python -m tests.sim`` prints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sim.tables import ALGORITHMS, WITHOUT_BUDGET
from tests.sim.world import Fault, Method, Rumour, World

BUILT_IN = ALGORITHMS["built in"]
TOWN = World(load=0.5, seconds=5.0, warm_up=1.0, clients=2, idempotent=False)
STORM = World(load=0.85, seconds=10.0, clients=4, fault=Fault(1.0, 3.0), warm_up=0.0)


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(replace(TOWN, load=0.9), id="90 % load"),
        pytest.param(replace(TOWN, load=0.97), id="97 % load"),
        pytest.param(replace(TOWN, slow=10.0), id="one endpoint ten times slower"),
        pytest.param(replace(TOWN, failing=1.0), id="one endpoint fails at once"),
    ],
)
def test_what_is_built_in_beats_round_robin(world: World) -> None:
    rotation = replace(world, policy=ALGORITHMS["round robin"]).run()
    ours = replace(world, policy=BUILT_IN).run()
    assert ours.ok > 0.999
    assert ours.ok >= rotation.ok
    assert ours.percentile(0.99) < rotation.percentile(0.99)


def test_a_failing_endpoint_draws_traffic_unless_errors_are_penalised() -> None:
    world = replace(TOWN, failing=1.0)
    penalised = replace(world, policy=ALGORITHMS["P2C peak EWMA"]).run()
    not_penalised = replace(world, policy=ALGORITHMS["P2C peak EWMA, errors not penalised"]).run()
    assert not_penalised.ok < 0.9 < 0.999 < penalised.ok


def test_four_attempts_without_a_budget_never_recover_from_a_storm() -> None:
    outcomes = replace(STORM, policy=WITHOUT_BUDGET, servers=2).run()
    assert outcomes.between(0.0, 1.0).ok > 0.99
    assert outcomes.between(8.0, 10.0).ok < 0.01


def test_what_is_built_in_recovers_from_a_storm() -> None:
    outcomes = replace(STORM, policy=BUILT_IN, seconds=11.0, servers=8, fault=Fault(1.0, 4.0)).run()
    assert outcomes.between(1.0, 4.0).ok < 0.7
    # The backlog of 3 s at 35 % too much is gone 7 s later at 15 % to spare; callers wait for the last second of it.
    assert outcomes.recovered(4.0) <= 6.0


@pytest.mark.parametrize("balance", ["p2c", "round_robin"])
def test_ejection_keeps_no_storm_of_two_servers_alive(balance: str) -> None:
    world = replace(STORM, seconds=16.0, servers=2, fault=Fault(1.0, 4.0), idempotent=False)
    spared = replace(world, policy=f"default: {{balance: {balance}, outlier: off}}").run()
    ejecting = replace(world, policy=f"default: {{balance: {balance}}}").run()
    assert ejecting.recovered(4.0) <= spared.recovered(4.0) + 2.0


def test_short_queues_in_the_servers_carry_what_can_be_carried_through_a_storm() -> None:
    outcomes = replace(STORM, policy="default: {server: {concurrency: 4, queue: 16, wait: 100ms}}").run()
    assert outcomes.between(1.0, 3.0).ok == pytest.approx(0.5 / 0.85, abs=0.05)
    assert outcomes.recovered(3.0) <= 0.5


def test_an_adaptive_limit_in_the_client_is_not_built_in_because_it_refuses_where_nothing_is_wrong() -> None:
    world = World(load=0.8, seconds=12.0, methods=(Method("Get", 0.01, 0.9), Method("Report", 0.5, 0.1)), patience=15.0)
    assert replace(world, policy=BUILT_IN).run().ok == 1.0
    assert replace(world, policy="default: {concurrency: {adaptive: gradient2}}").run().ok < 0.9


def test_a_rumour_of_bad_health_brings_nobody_down_where_it_is_guarded() -> None:
    world = World(load=0.6, seconds=4.0)
    assert replace(world, rumour=Rumour(6, down=False, guarded=True)).run().ok == 1.0
    assert replace(world, rumour=Rumour(6, down=False)).run().ok < 0.5


def test_the_same_seed_ends_the_same_and_another_does_not() -> None:
    world = replace(TOWN, seconds=2.0, failing=0.3, clients=3, fault=Fault(0.5, 1.0))
    first = world.run().endings
    assert first == world.run().endings
    assert first != replace(world, seed=2).run().endings
