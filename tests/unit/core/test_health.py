"""Reported state, operator's intent and suspicion, merged: nothing is falsified."""

from __future__ import annotations

import pytest

from controlplane.core.health import endpoint
from controlplane.core.model import Desired, Health, InstanceState
from tests.unit.core.nouns import instance

DRAIN = Desired(drain=True)


@pytest.mark.parametrize(
    ("state", "desired", "suspect", "health"),
    [
        (InstanceState.SERVING, None, False, Health.HEALTHY),
        (InstanceState.SERVING, None, True, Health.SUSPECT),
        (InstanceState.SERVING, DRAIN, False, Health.DRAINING),
        (InstanceState.SERVING, DRAIN, True, Health.DRAINING),
        (InstanceState.STARTING, None, False, Health.UNHEALTHY),
        (InstanceState.STARTING, DRAIN, True, Health.UNHEALTHY),
        (InstanceState.UNHEALTHY, DRAIN, True, Health.UNHEALTHY),
        (InstanceState.UNHEALTHY, None, True, Health.UNHEALTHY),
        (InstanceState.DRAINING, None, True, Health.DRAINING),
    ],
)
def test_health(state: InstanceState, desired: Desired | None, suspect: bool, health: Health) -> None:
    assert endpoint(instance(state=state), desired, suspect=suspect).health is health


@pytest.mark.parametrize(
    ("desired", "weight"), [(None, 70), (Desired(drain=True), 70), (Desired(weight=0), 0), (Desired(weight=500), 500)]
)
def test_the_operators_weight_wins_also_when_it_is_none_at_all(desired: Desired | None, weight: int) -> None:
    assert endpoint(instance(weight=70), desired, suspect=False).weight == weight


def test_what_the_instance_says_of_itself_is_carried_over() -> None:
    told = endpoint(instance("a"), None, suspect=False)
    assert (told.id, told.address, told.port) == ("a", "10.0.0.1", 8000)
