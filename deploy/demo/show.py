"""One scene while it is played, before an audience."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeVar

from deploy.demo.findings import Applied, Finding
from deploy.demo.program import ROOT, DemoError
from deploy.demo.screen import Screen
from deploy.demo.shopper import TIMEOUT
from deploy.demo.stage import Printed, Stage
from deploy.demo.traffic import Call, answers

TICK = 0.1
# Calls that began before something happened have ended after this: the shoppers' timeout and a little. Seconds.
AFTERMATH = TIMEOUT + 0.3
START_LIMIT = 20.0
SAMPLE_LIMIT = 20.0

POLICIES = "deploy/demo/policies"

T = TypeVar("T")


class Show:
    """One scene while it is played: time passes, and the live line with it."""

    def __init__(self, stage: Stage, screen: Screen) -> None:
        self.stage = stage
        self._screen = screen
        self._mark = stage.traffic.mark()

    @property
    def calls(self) -> Sequence[Call]:
        """The calls of this scene."""
        return self.stage.traffic.since(self._mark)

    async def during(self, work: Awaitable[T]) -> T:
        """Let the audience watch while something is done."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                self.stage.check()
                self._screen.live(self.stage, self._mark)
                await asyncio.wait({task}, timeout=TICK)
            return task.result()
        finally:
            task.cancel()

    async def play(self, seconds: float) -> None:
        """Let the audience watch for a while."""
        await self.during(asyncio.sleep(seconds))

    async def until(self, condition: Callable[[], Awaitable[bool]], limit: float) -> float:
        """Let the audience watch until something is so; the seconds that it took, ``inf`` when it never was."""
        began = time.monotonic()
        try:
            await self.during(asyncio.wait_for(_come_true(condition), limit))
        except TimeoutError:
            return inf
        return time.monotonic() - began

    async def sample(self, count: int) -> Sequence[Call]:
        """Let the audience watch the next so many calls. Fewer, when they do not come within ``SAMPLE_LIMIT``."""
        mark = self.stage.traffic.mark()

        async def enough() -> bool:
            return self.stage.traffic.mark() - mark >= count

        await self.until(enough, SAMPLE_LIMIT)
        return self.stage.traffic.since(mark)

    async def welcome(self, name: str) -> float:
        """Wait for an instance that was started; the seconds from its registration to its first call."""

        async def registered() -> bool:
            return name in await self.stage.admin.healthy()

        async def answered() -> bool:
            return any(answers(self.calls, name))

        await self.until(registered, START_LIMIT)
        return await self.until(answered, START_LIMIT)

    async def apply(self, policy: str) -> Applied:
        """Apply one of ``POLICIES``, as an operator does. Raises DemoError when it is not a new one."""
        file = f"{POLICIES}/{policy}.yaml"
        entered = time.monotonic()
        printed = await self.enter("apply", "-f", file, file=(ROOT / file).read_text())
        found = re.search(r"applied at revision (\d+)", "\n".join(printed.lines))
        if found is None:
            raise DemoError(f"{file} was not applied: {printed.lines}")
        return Applied(int(found[1]), entered, printed.at)

    async def withdraw(self) -> Applied:
        """Withdraw what was applied, as an operator does."""
        entered = time.monotonic()
        printed = await self.enter("delete", "policy", "orders")
        return Applied(0, entered, printed.at)

    async def enter(self, *arguments: str, file: str = "") -> Printed:
        """Enter a ``trimtab`` command; what it printed."""
        self._screen.command(f"trimtab {' '.join(arguments)}", file)
        printed = await self.during(self.stage.trimtab(*arguments))
        self._screen.printed(printed.lines)
        return printed


async def _come_true(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():  # noqa: ASYNC110 - what it asks of other processes sets no event here
        await asyncio.sleep(TICK)


@dataclass(frozen=True, slots=True)
class Scene:
    """``key`` names it on the command line."""

    key: str
    title: str
    what: str
    play: Callable[[Show], Awaitable[list[Finding]]]
