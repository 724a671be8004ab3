"""What a call feels of a policy that changes in the same process: one thread calls all the time, another applies changes.

While Python code of one thread runs, no other's does: a call waits for the interpreter whatever the other thread works on.
So changes take turns with other work of as much CPU time, which touches nothing of the mesh: what calls wait longer during
a change, they wait for the change itself, that is for the service's lock. Every change has another value in every section.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from trimtab.discovery import Callee, read_release
from trimtab.policy import canonical, reading
from trimtab.v1.types_pb2 import KIND_POLICY, Resource

from tests.bench.house import document
from tests.bench.live_policy import ENDPOINTS, SERVICE, policy
from tests.bench.offline import OfflineMesh
from tests.bench.report import Row, spread

CHANGES = 300
WARM_UP = 20
PAUSE = 0.01  # seconds between one piece of work and the next
TARGET = 1e-3
TARGET_LONGER = 1.25  # a call waits for the interpreter, and hardly for more


@dataclass
class Calls:
    """When each call of a thread that does nothing else began and was over."""

    call: Callable[[], object]
    began: array[float] = field(default_factory=lambda: array("d"))
    over: array[float] = field(default_factory=lambda: array("d"))
    stopped: bool = False

    def run(self) -> None:
        """Call until stopped."""
        call, now = self.call, time.perf_counter
        while not self.stopped:
            self.began.append(now())
            call()
            self.over.append(now())

    def longest(self, began: float, ended: float) -> float:
        """Seconds of the longest call that was under way within a time."""
        first, last = bisect_left(self.over, began), bisect_left(self.began, ended)
        return max((self.over[at] - self.began[at] for at in range(first, min(last, len(self.over)))), default=0.0)


@dataclass
class Times:
    """Seconds. ``cost``: CPU of a change; ``locked``: of that with the lock held."""

    cost: list[float] = field(default_factory=list)
    locked: list[float] = field(default_factory=list)


def run() -> list[Row]:
    """What a change costs when nobody calls; then what calls feel of it."""
    mesh = OfflineMesh()
    try:
        callee = mesh.settle(SERVICE, ENDPOINTS)
        call = mesh.guard(SERVICE, method="Charge")(lambda endpoint: endpoint)
        changes = iter(resources(callee.name))
        call()
        cost, locked = alone(callee, changes, call)
        during, beside, between = meanwhile(Calls(call), changes, mesh.enact)
    finally:
        mesh.close()
    return [
        Row(
            "a change of every section, from bytes to the next call by it: CPU",
            f"{cost * 1e6:.0f} µs",
            target=f"≤ {TARGET * 1e3:.0f} ms",
            holds=cost <= TARGET,
        ),
        Row(
            "… of that under the lock that calls wait for",
            f"{locked * 1e6:.1f} µs",
            f"all: {cost * 1e6:.0f} µs",
            locked / cost,
        ),
        Row(
            "… the longest call of another thread meanwhile, p50 / p99 / max",
            spread(during),
            f"meanwhile as much other work: {spread(beside)}",
            longer := statistics.median(during) / statistics.median(beside),
            f"≤ {TARGET_LONGER:.2f} ×",
            longer <= TARGET_LONGER,
        ),
        Row(
            f"… {len(between):,} calls between, p50 / p99 / max",
            spread(between),
        ),
    ]


def resources(name: str) -> list[Resource]:
    """As many policies of a service as are needed, as the wire has them, no two alike in any section."""
    found = []
    for number in range(1, 2 * CHANGES + 1):
        resource = Resource(kind=KIND_POLICY, name=name, version=number)
        resource.policy.document = canonical.encode(reading.read(document(SERVICE, policy(number))))
        found.append(resource)
    return found


def alone(callee: Callee, changes: Iterator[Resource], call: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of a change, and of its part under the lock: medians."""
    times, now = Times(), time.thread_time
    for _ in range(CHANGES):
        resource = next(changes)
        began = now()
        adopt = callee.prepare(resource.name, read_release(resource))
        prepared = now()
        adopt()
        ended = now()
        call()
        times.cost.append(ended - began)
        times.locked.append(ended - prepared)
    return statistics.median(times.cost[WARM_UP:]), statistics.median(times.locked[WARM_UP:])


def work(seconds: float) -> None:
    """Be busy for so much CPU time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def meanwhile(
    calls: Calls, changes: Iterator[Resource], enact: Callable[[Resource], None]
) -> tuple[list[float], list[float], list[float]]:
    """The longest call during each change, the longest during each piece of other work, and all calls between.

    Each piece takes as much CPU as the change before it, which costs more here than alone: calls push it out of the caches.
    """
    thread = threading.Thread(target=calls.run, daemon=True)
    during: list[tuple[float, float]] = []
    gc.collect()
    gc.freeze()
    thread.start()
    for change in changes:
        time.sleep(PAUSE)
        began, cpu = time.perf_counter(), time.thread_time()
        enact(change)
        cpu, ended = time.thread_time() - cpu, time.perf_counter()
        during.append((began, ended))
        time.sleep(PAUSE)
        began = time.perf_counter()
        work(cpu)
        during.append((began, time.perf_counter()))
    calls.stopped = True
    thread.join()
    gc.unfreeze()
    longest = [calls.longest(began, ended) for began, ended in during[2 * WARM_UP :]]
    ends = [ended for _, ended in during]
    between = [
        over - began
        for began, over in zip(calls.began, calls.over, strict=True)
        if (at := bisect_left(ends, began)) == len(ends) or over < during[at][0]
    ]
    return longest[::2], longest[1::2], between
