"""The deadlines of awaited calls, on a real loop."""

from __future__ import annotations

import asyncio
import time

import pytest
from trimtab.calling.clock import RealClock


def in_time(seconds: float) -> float:
    return time.monotonic() + seconds


async def test_what_takes_too_long_ends_with_a_timeout() -> None:
    with pytest.raises(TimeoutError), RealClock.deadline(in_time(0.02)):
        await asyncio.Event().wait()


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def work() -> None:
        with RealClock.deadline(in_time(60)):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_was_cancelled_can_still_clean_up_within_a_deadline() -> None:
    met: list[BaseException] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                with RealClock.deadline(in_time(0.02)):
                    await asyncio.Event().wait()
            except BaseException as error:
                met.append(error)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(error) for error in met] == [TimeoutError]
