"""Who listens to a service hears what is known of it, at whatever moment it began to."""

from __future__ import annotations

import pytest
from trimtab.core.calling.rules import Caller
from trimtab.core.endpoints import ServiceState
from trimtab.discovery import Callee
from trimtab.errors import NoEndpoints

NAME = "default/orders"
SAVED, NEWS = ServiceState(NAME, 1, stale=True), ServiceState(NAME, 2)


@pytest.fixture
def callee() -> Callee:
    caller = Caller("tests", "", "tests", "p2c", lambda: None)
    return Callee(NAME, caller, lambda callee: NoEndpoints(callee.name), SAVED)


def answer(callee: Callee) -> None:
    for policy in tuple(callee.unanswered):
        callee.answered(policy)


def test_before_anything_is_known_for_sure_it_hears_the_first_news(callee: Callee) -> None:
    heard: list[ServiceState] = []
    callee.listen(heard.append)
    assert heard == []
    callee.swap(NEWS)
    answer(callee)
    assert heard == [NEWS]


def test_between_the_endpoints_and_the_policies_it_hears_the_endpoints(callee: Callee) -> None:
    heard: list[ServiceState] = []
    callee.swap(NEWS)
    assert not callee.settled
    callee.listen(heard.append)
    answer(callee)
    assert callee.settled
    assert heard == [NEWS]


def test_when_no_server_can_be_reached_it_hears_once_what_was_saved(callee: Callee) -> None:
    heard: list[ServiceState] = []
    callee.listen(heard.append)
    callee.settle()
    callee.settle()
    assert heard == [SAVED]
    callee.swap(NEWS)
    assert heard == [SAVED, NEWS]


def test_after_that_it_hears_at_once(callee: Callee) -> None:
    callee.settle()
    heard: list[ServiceState] = []
    stop = callee.listen(heard.append)
    assert heard == [SAVED]
    stop()
    callee.swap(NEWS)
    assert heard == [SAVED]
