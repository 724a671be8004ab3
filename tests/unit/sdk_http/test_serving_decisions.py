"""When a draining server stops, who it is, and how durations are read."""

from __future__ import annotations

import pytest
from trimtab.duration import parse_duration
from trimtab.servers.drain import Drain
from trimtab.servers.member import Place, worker_id


def test_a_drain_ends_when_clients_had_time_and_nothing_is_in_flight() -> None:
    drain = Drain(limit=5.0, settle=1.0)
    assert not drain.over(0.9, in_flight=0)
    assert drain.over(1.0, in_flight=0)


def test_a_drain_waits_for_calls_in_flight_but_not_for_ever() -> None:
    drain = Drain(limit=5.0, settle=1.0)
    assert not drain.over(4.9, in_flight=1)
    assert drain.over(5.0, in_flight=1)


def test_a_limit_shorter_than_the_settling_time_is_kept() -> None:
    assert Drain(limit=0.2, settle=1.0).over(0.2, in_flight=0)
    assert Drain(limit=0.0).over(0.0, in_flight=3)


def test_a_worker_is_told_apart_by_its_process() -> None:
    assert worker_id(Place("orders", 8000, "10.0.0.7"), 41) == "10.0.0.7-8000-w41"
    assert worker_id(Place("orders", 8000, "10.0.0.7", id="blue"), 41) == "blue-w41"


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("5s", 5.0), ("1.5m", 90.0), ("2h", 7200.0), ("3", 3.0), (4, 4.0), (0, 0.0)]
)
def test_durations_are_read_as_people_write_them(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "5 s", "5d", "1e3", -1, float("inf"), float("nan")])
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)
