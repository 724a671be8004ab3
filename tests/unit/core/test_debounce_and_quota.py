"""When a burst is acted on, and how much one client may ask."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.debounce import Debounce
from controlplane.core.quota import FloodLimit


def test_nothing_is_due_before_a_change_and_after_it_was_acted_on() -> None:
    debounce = Debounce(quiet=2.0, limit=20.0)
    assert debounce.due() is None
    debounce.add(1.0)
    assert debounce.due() == 3.0
    debounce.clear()
    assert debounce.due() is None


def test_a_steady_stream_of_changes_is_acted_on_at_the_limit() -> None:
    debounce = Debounce(quiet=2.0, limit=20.0)
    for change in range(40):
        debounce.add(100.0 + change)
    assert debounce.due() == 120.0


@given(st.lists(st.floats(min_value=0.0, max_value=5.0), min_size=1, max_size=50))
def test_a_burst_waits_for_quiet_but_never_longer_than_the_limit(gaps: list[float]) -> None:
    debounce = Debounce(quiet=1.0, limit=7.0)
    first = now = 50.0
    debounce.add(now)
    for gap in gaps:
        due = debounce.due()
        assert due is not None
        assert due <= first + 7.0
        now += gap
        debounce.add(now)
        after = debounce.due()
        assert after is not None
        assert after >= due
        assert after == min(now + 1.0, first + 7.0)


def test_a_flood_is_refused_after_its_burst_and_admitted_again_with_time() -> None:
    limit = FloodLimit(rate=10.0, burst=5)
    assert [limit.admit(100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert limit.admit(100.1)
    assert not limit.admit(100.1)


def test_what_is_refused_costs_nothing() -> None:
    limit = FloodLimit(rate=10.0, burst=1)
    assert limit.admit(0.0)
    assert not any(limit.admit(0.01) for _ in range(1000))
    assert limit.admit(0.1)


@given(st.lists(st.floats(min_value=0.0, max_value=0.5), max_size=200))
def test_no_second_ever_sees_more_than_rate_and_burst(gaps: list[float]) -> None:
    limit, now, admitted = FloodLimit(rate=20.0, burst=10), 1000.0, []
    for gap in gaps:
        now += gap
        if limit.admit(now):
            admitted.append(now)
    for index, start in enumerate(admitted):
        within = [at for at in admitted[index:] if at < start + 1.0]
        assert len(within) <= 20 + 10


def test_a_steady_client_at_the_rate_is_never_refused() -> None:
    limit = FloodLimit(rate=100.0, burst=1)
    assert all(limit.admit(50.0 + beat * 0.01) for beat in range(1000))
