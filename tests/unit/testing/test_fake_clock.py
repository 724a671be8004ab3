"""Virtual time: it passes only for those who wait, and for all of them at once."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.testing import FakeClock

SECONDS = st.integers(0, 20).map(float)


def test_it_stands_still_until_somebody_waits() -> None:
    clock = FakeClock(start=100.0)
    assert clock.now() == 100.0
    clock.advance(2.5)
    clock.sleep(0.5)
    assert clock.now() == 103.0


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_it_does_not_go_back(seconds: float) -> None:
    with pytest.raises(ValueError, match="does not go back"):
        FakeClock().advance(seconds)


@given(st.lists(st.lists(SECONDS, max_size=5), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_tasks_wait_beside_each_other_and_wake_in_the_order_of_their_times(waits: list[list[float]]) -> None:
    clock = FakeClock(start=0.0)
    woken: list[float] = []

    async def live(pauses: list[float]) -> float:
        for pause in pauses:
            before = clock.now()
            await clock.pause(pause)
            assert clock.now() == before + pause
            woken.append(clock.now())
        return clock.now()

    async def main() -> list[float]:
        return await asyncio.gather(*map(live, waits))

    assert asyncio.run(main()) == [sum(pauses) for pauses in waits]
    assert woken == sorted(woken)
    assert clock.now() == max(map(sum, waits))


@given(limit=SECONDS, work=SECONDS)
@settings(max_examples=60, deadline=None)
def test_a_deadline_ends_what_waits_longer_and_nothing_else(limit: float, work: float) -> None:
    clock = FakeClock(start=0.0)

    async def main() -> bool:
        try:
            with clock.deadline(clock.now() + limit):
                await clock.pause(work + 0.5)
        except TimeoutError:
            return False
        return True

    assert asyncio.run(main()) == (work + 0.5 < limit)
    assert clock.now() == min(work + 0.5, limit)


async def test_a_deadline_that_is_over_ends_the_block_at_its_first_wait() -> None:
    clock = FakeClock()
    with pytest.raises(TimeoutError), clock.deadline(clock.now() - 1):
        await clock.pause(5)
    assert clock.now() == 1000.0


async def test_advancing_ends_what_is_due_meanwhile() -> None:
    clock = FakeClock()

    async def hang() -> None:
        with clock.deadline(clock.now() + 3):
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await asyncio.sleep(0)
    clock.advance(2)
    await asyncio.sleep(0)
    assert not task.done()
    clock.advance(1)
    with pytest.raises(TimeoutError):
        await task


async def test_a_task_that_is_cancelled_stops_holding_time() -> None:
    clock = FakeClock(start=0.0)
    sooner = asyncio.create_task(clock.pause(1))
    await asyncio.sleep(0)
    sooner.cancel()
    await clock.pause(5)
    assert sooner.cancelled()
    assert clock.now() == 5.0


async def test_a_task_that_lets_its_own_deadline_pass_ends_at_its_next_wait_or_not_at_all() -> None:
    clock = FakeClock()
    with clock.deadline(clock.now() + 1):
        clock.advance(5)
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError), clock.deadline(clock.now() + 1):
        clock.advance(5)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
