"""When attempts follow each other: gRFC A6's formula, and what a callee may ask for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.retrying.schedule import NOT_AT_ALL, Schedule, read_pushback
from trimtab.policy.sections import Retry


class Fixed:
    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


def waits(retry: Retry, rng: Fixed) -> list[float | None]:
    schedule = Schedule(retry)
    return [schedule.delay(made, None, rng) for made in range(1, retry.attempts)]


def test_each_wait_is_longer_than_the_last_up_to_the_longest() -> None:
    retry = Retry(attempts=6, backoff=(0.1, 1.0), multiplier=2.0)
    assert waits(retry, Fixed(0.5)) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])


def test_jitter_reaches_from_four_to_six_fifths() -> None:
    retry = Retry(attempts=3, backoff=(0.1, 1.0), multiplier=2.0)
    assert waits(retry, Fixed(0.0)) == pytest.approx([0.08, 0.16])
    assert waits(retry, Fixed(1.0)) == pytest.approx([0.12, 0.24])


@settings(max_examples=100, deadline=None)
@given(
    first=st.floats(0.001, 10.0),
    factor=st.floats(1.0, 100.0),
    multiplier=st.floats(1.0, 10.0),
    made=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_every_wait_is_the_formulas(first: float, factor: float, multiplier: float, made: int, seed: int) -> None:
    schedule = Schedule(Retry(attempts=20, backoff=(first, first * factor), multiplier=multiplier))
    expected = min(first * multiplier ** (made - 1), first * factor)
    wait = schedule.delay(made, None, random.Random(seed))
    assert wait is not None
    assert 0.8 * expected <= wait * (1 + 1e-12)
    assert wait <= 1.2 * expected * (1 + 1e-12)


def test_more_attempts_than_planned_wait_as_long_as_the_last() -> None:
    assert Schedule(Retry(attempts=1, backoff=(0.1, 1.0))).delay(7, None, Fixed(0.5)) == pytest.approx(0.1)


class TestPushback:
    def test_is_kept_exactly(self) -> None:
        schedule = Schedule(Retry())
        assert schedule.delay(1, 1.0, Fixed(0.9)) == 1.0
        assert schedule.delay(2, 0.0, Fixed(0.9)) == 0.0

    def test_the_backoff_begins_anew_after_it(self) -> None:
        schedule = Schedule(Retry(attempts=5, backoff=(0.1, 1.0)))
        pushed_at = 3
        assert schedule.delay(pushed_at, 4.0, Fixed(0.5)) == 4.0
        assert schedule.delay(4 - pushed_at, None, Fixed(0.5)) == pytest.approx(0.1)

    def test_not_at_all_ends_it(self) -> None:
        assert Schedule(Retry()).delay(1, NOT_AT_ALL, Fixed(0.5)) is None

    # grpc-go, test/retry_test.go, TestRetryStreaming: the rows on server pushback; gRFC A6 on the form of the number
    @pytest.mark.parametrize(
        ("values", "seconds"),
        [
            ([], None),
            (["1000"], 1.0),
            (["10"], 0.01),
            (["0"], 0.0),
            (["-1"], NOT_AT_ALL),
            (["xxx"], NOT_AT_ALL),
            (["100", "10"], NOT_AT_ALL),
            ([""], NOT_AT_ALL),
            (["010"], NOT_AT_ALL),
            (["1.5"], NOT_AT_ALL),
            (["٣"], NOT_AT_ALL),
            (["2147483647"], 2147483.647),
            (["2147483648"], NOT_AT_ALL),
        ],
    )
    def test_is_read_from_metadata(self, values: list[str], seconds: float | None) -> None:
        assert read_pushback(values) == seconds
