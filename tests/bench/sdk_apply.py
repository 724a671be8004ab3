"""What a change costs the SDK: a delta of 1, 100 and 10,000 endpoints to a service of 10,000.

Three shares: ``parse``, protobuf's, from bytes to a message; ``decode``, from the message to values; ``apply``, which the
target means, from those values to the new state and the pickers of all its pipelines (``Callee.swap``), which the next call
then uses. CPU time of the thread, medians. The reference is a bare copy of a dictionary of as many entries, in between.
"""

from __future__ import annotations

import functools
import gc
import re
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import TypeVar

from trimtab.core.endpoints import News, ServiceState, decode
from trimtab.discovery import Callee
from trimtab.v1.types_pb2 import HEALTH_HEALTHY, KIND_ENDPOINTS, Endpoint, Endpoints, Resource

from tests.bench.offline import OfflineMesh
from tests.bench.report import Row, ms

SIZE = 10_000
CHANGES = (1, 100, SIZE)
ROUNDS = 15
WARM_UP = 2
TARGETS = {1: 0.3e-3, 100: 0.5e-3, SIZE: 6e-3}
TARGET_BYTES = 256
CALLS = 10 * SIZE
# Whether the endpoints weigh differently, and the policy.
OTHERS = {
    "round_robin": (False, "balance: round_robin"),
    "round_robin, weighted": (True, "balance: round_robin"),
    "ring_hash": (False, "balance: {algorithm: ring_hash, hash: x-user}"),
    "maglev": (False, "balance: {algorithm: maglev, hash: x-user}"),
}

T = TypeVar("T")


def run() -> list[Row]:
    """What is built in against its targets, then the other algorithms."""
    mesh = OfflineMesh()
    try:
        return [*rows_of_built_in(mesh), *(row_of(mesh, name) for name in OTHERS), *memory(mesh)]
    finally:
        mesh.close()


def rows_of_built_in(mesh: OfflineMesh) -> list[Row]:
    """A row for each size of delta."""
    rows = []
    for changed, (parse, decoded, applied, copied) in measure(mesh, "p2c", weighted=False).items():
        target = TARGETS[changed]
        rows.append(
            Row(
                f"p2c: {changed:,} of {SIZE:,} endpoints change, applied",
                f"{ms(applied)} (before it: parse {ms(parse)}, decode {ms(decoded)})",
                f"dict copy: {ms(copied)}",
                applied / copied,
                f"≤ {target * 1e3:g} ms",
                applied <= target,
            )
        )
    return rows


def row_of(mesh: OfflineMesh, name: str) -> Row:
    """Another algorithm: what it takes to build its picker is paid for with every change."""
    weighted, policy = OTHERS[name]
    figures = measure(mesh, name, weighted, policy)
    return Row(
        f"{name}: {' / '.join(f'{changed:,}' for changed in figures)} of {SIZE:,} change, applied",
        " / ".join(ms(applied) for _, _, applied, _ in figures.values()),
        f"dict copy: {' / '.join(ms(copied) for *_, copied in figures.values())}",
        statistics.median(applied / copied for _, _, applied, copied in figures.values()),
    )


def measure(mesh: OfflineMesh, name: str, weighted: bool, *policy: str) -> dict[int, list[float]]:
    """Medians in seconds, by size of the delta: parse, decode, apply with all pickers, and the reference."""
    callee = mesh.settle(re.sub("[^a-z]+", "-", name), 0, *policy)
    base = ServiceState(callee.name).apply(decode(Resource.FromString(whole(callee.name, weighted))))
    callee.swap(base)
    return {changed: medians(callee, base, difference(callee.name, changed, weighted)) for changed in CHANGES}


def medians(callee: Callee, base: ServiceState, content: bytes) -> list[float]:
    """The same for one delta."""
    figures: list[list[float]] = [[], [], [], []]
    for _ in range(WARM_UP + ROUNDS):
        # A message caches what was read of it once: each round reads a fresh one.
        resource = timed(figures[0], functools.partial(Resource.FromString, content))
        news = timed(figures[1], functools.partial(decode, resource))
        timed(figures[2], functools.partial(swap, callee, base, news))
        timed(figures[3], functools.partial(dict, base.endpoints))
    return [statistics.median(samples[WARM_UP:]) for samples in figures]


def timed(into: list[float], work: Callable[[], T]) -> T:
    """Do it, and note the seconds."""
    start = time.thread_time()
    done = work()
    into.append(time.thread_time() - start)
    return done


def swap(callee: Callee, held: ServiceState, news: News) -> None:
    """Do what the stream's thread does before a caller sees the change."""
    callee.swap(held.apply(news))


def memory(mesh: OfflineMesh) -> list[Row]:
    """Bytes that a service's state and picker hold for each endpoint, and what calls to it add."""
    callee = mesh.settle("held", 0)
    content = whole(callee.name, weighted=False)
    gc.collect()
    tracemalloc.start()
    swap(callee, ServiceState(callee.name), decode(Resource.FromString(content)))
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    pipeline = callee.pipeline("")
    for _ in range(CALLS):
        pipeline.answered(pipeline.begin(pipeline.now()), pipeline.now(), True)
    gc.collect()
    called = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    endpoints = callee.state.endpoints.values()
    strings = sum(sys.getsizeof(e.id) + sys.getsizeof(e.address) + sys.getsizeof(e.zone) for e in endpoints)
    bare, whole_ = (held - strings) / SIZE, (called - strings) / SIZE
    return [
        Row(
            f"p2c: memory per endpoint, beside its strings, before calls / after {CALLS:,} of them",
            f"{bare:.0f} / {whole_:.0f} B",
            f"its strings: {strings / SIZE:.0f} B",
            None,
            f"≤ {TARGET_BYTES} B",
            max(bare, whole_) <= TARGET_BYTES,
        )
    ]


def endpoint(number: int, weight: int) -> Endpoint:
    """One of many."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return Endpoint(
        id=f"{address}-8000", address=address, port=8000, weight=weight, health=HEALTH_HEALTHY, zone="eu-1a"
    )


def weight_of(number: int, weighted: bool) -> int:
    """What an endpoint weighs at first."""
    return 50 + number % 100 if weighted else 100


def whole(name: str, weighted: bool) -> bytes:
    """The service as a snapshot."""
    endpoints = [endpoint(number, weight_of(number, weighted)) for number in range(SIZE)]
    body = Endpoints(full=True, changed=endpoints, total=SIZE)
    return Resource(kind=KIND_ENDPOINTS, name=name, version=1, digest=1, endpoints=body).SerializeToString()


def difference(name: str, changed: int, weighted: bool) -> bytes:
    """A delta: endpoints that moved to another zone and, in a weighted service, have another weight."""
    endpoints = [endpoint(number, 1 + weight_of(number, weighted) if weighted else 100) for number in range(changed)]
    for told in endpoints:
        told.zone = "eu-1b"
    body = Endpoints(base=1, changed=endpoints, total=SIZE)
    return Resource(kind=KIND_ENDPOINTS, name=name, version=2, digest=2, endpoints=body).SerializeToString()
