"""Real clients that make calls: ``python -m tests.bench.callers``. Commands as in ``tests.bench.commands``.

Each is an AsyncMesh with a stream of its own. What it calls is a function that takes a while and needs no network, so that
a call that is late, or fails, does so for what the mesh did. Times are seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import uvloop
from trimtab import AsyncMesh
from trimtab.core.calling.balancer import Balancer
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.calling.rules import Release, Rules
from trimtab.core.endpoints import Endpoint
from trimtab.discovery import Callee

from tests.bench.commands import obey

TAKES = 0.005  # seconds: so long is a call under way when nothing delays it
NEAR = 0.02  # seconds after a swap in which a call may feel it
COUNTED = (Rules, Pipeline, Balancer)


async def charge(order: int, *, endpoint: Endpoint) -> int:
    """What is called."""
    await asyncio.sleep(TAKES)
    return order


class Caller:
    """One client. ``swaps``: revision and time of each policy that came into force; ``began`` and ``seconds``: its calls."""

    def __init__(self, address: str, name: str, service: str) -> None:
        self.service = service
        self.mesh = AsyncMesh(address, name=name, snapshot=False, load=lambda: (0.0, 0.0))
        self.swaps: list[tuple[int, float]] = []
        self.began, self.seconds = array("d"), array("d")
        self.failures: list[str] = []
        self.outdated = 0
        self._charge: Any = self.mesh.guard(service, method="Charge")(charge)

    async def follow(self) -> None:
        """Know the service, and note its policies from now on."""
        await self.mesh.wait_ready(self.service)
        note_swaps(await self.mesh.callee(self.service), self.swaps)

    async def keep_calling(self, interval: float, offset: float) -> None:
        """Call every ``interval`` seconds until cancelled, whatever becomes of the calls."""
        start = time.monotonic() + offset
        while True:
            now = time.monotonic()
            intended = start + interval * max(0, -(-(now - start) // interval))
            await asyncio.sleep(intended - now)
            await self.call(intended)

    async def call(self, intended: float) -> None:
        """One call, timed from when it was to begin."""
        in_force = self.swaps[-1][0] if self.swaps else 0
        try:
            _, call = await self._charge.traced(1)
        except Exception as error:
            self.failures.append(repr(error))
        else:
            self.outdated += call.policy < in_force
        self.began.append(intended)
        self.seconds.append(time.monotonic() - intended)

    def latencies(self) -> tuple[list[float], list[float]]:
        """Seconds of the calls that were near a swap, and of all others."""
        swaps = [at for _, at in self.swaps]
        near: list[float] = []
        far: list[float] = []
        for began, seconds in zip(self.began, self.seconds, strict=True):
            last = bisect_right(swaps, began + seconds)
            (near if last and swaps[last - 1] > began - NEAR else far).append(seconds)
        return near, far

    def clear(self) -> None:
        """Forget everything but what is in force."""
        del self.swaps[:-1], self.began[:], self.seconds[:]


def note_swaps(callee: Callee, swaps: list[tuple[int, float]]) -> None:
    """Have the time noted at which a policy is in force: the next call goes by it."""
    prepare = callee.prepare

    def noting(policy: str, release: Release | None) -> Callable[[], None]:
        adopt = prepare(policy, release)

        def adopt_and_note() -> None:
            adopt()
            swaps.append((callee.rules.revision, time.monotonic()))

        return adopt_and_note

    callee.prepare = noting  # type: ignore[method-assign]


class Callers:
    """The clients of one process."""

    def __init__(self) -> None:
        self._callers: list[Caller] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(
        self, address: str, first: int, count: int, service: str, interval: float, lanes: int = 1
    ) -> dict[str, Any]:
        """Have clients follow a service and call it, each in so many lanes every ``interval`` seconds, evenly spread."""
        for number in range(first, first + count):
            caller = Caller(address, f"caller-{number}", service)
            await caller.follow()
            self._callers.append(caller)
        for number, caller in enumerate(self._callers * lanes):
            offset = interval * number / (count * lanes)
            self._tasks.append(asyncio.create_task(caller.keep_calling(interval, offset)))
        return {}

    async def reached(self) -> dict[str, Any]:
        """The revision of the policy that is in force in all of them."""
        return {"revision": min(caller.swaps[-1][0] if caller.swaps else 0 for caller in self._callers)}

    async def collect(self) -> dict[str, Any]:
        """What there is since the last time. Raises what ended a caller."""
        for task in self._tasks:
            if task.done():
                task.result()
        answer: dict[str, Any] = {"swaps": [], "near": [], "far": [], "failures": [], "outdated": 0}
        for caller in self._callers:
            near, far = caller.latencies()
            answer["swaps"].append(list(caller.swaps))
            answer["near"] += near
            answer["far"] += far
            answer["failures"] += caller.failures
            answer["outdated"] += caller.outdated
            caller.clear()
        return answer

    async def census(self) -> dict[str, Any]:
        """Resident bytes, and how many objects there are of what a policy is made into."""
        gc.collect()
        kinds = Counter(type(thing) for thing in gc.get_objects())
        return {
            "rss": psutil.Process().memory_info().rss,
            "objects": {kind.__name__: kinds[kind] for kind in COUNTED},
        }


async def main() -> None:
    """Serve commands until stdin ends."""
    await obey(Callers())


if __name__ == "__main__":
    uvloop.run(main())
