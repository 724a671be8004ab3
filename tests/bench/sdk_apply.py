"""What a change costs the SDK: a delta of 1, 100 and 10,000 endpoints to a service of 10,000.

    python tests/bench/sdk_apply.py

Three shares: ``parse``, protobuf's, from bytes to a message; ``decode``, from the message to values; ``apply``, which
the target means, from those values to the new state and its picker, which a caller then sees. CPU time of the thread,
medians. The reference is a bare copy of a dictionary of as many entries, measured in between.
"""

from __future__ import annotations

import functools
import gc
import platform
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import TypeVar

import google.protobuf
from google.protobuf.internal import api_implementation
from trimtab.core.balancing.build import Context, build
from trimtab.core.balancing.picker import Picker
from trimtab.core.endpoints import News, ServiceState, decode
from trimtab.policy.sections import Balance
from trimtab.v1.types_pb2 import HEALTH_HEALTHY, KIND_ENDPOINTS, Endpoint, Endpoints, Resource

SIZE = 10_000
TARGETS_MS = {1: 0.3, 100: 0.5, 10_000: 6.0}
TARGET_BYTES = 256


def endpoint(number: int, weight: int = 100) -> Endpoint:
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return Endpoint(
        id=f"{address}-8000", address=address, port=8000, weight=weight, health=HEALTH_HEALTHY, zone="eu-1a"
    )


def whole() -> bytes:
    body = Endpoints(full=True, changed=[endpoint(n) for n in range(SIZE)], total=SIZE)
    return Resource(kind=KIND_ENDPOINTS, name="default/big", version=1, digest=1, endpoints=body).SerializeToString()


def difference(changed: int, weight: int) -> bytes:
    body = Endpoints(base=1, changed=[endpoint(n, weight) for n in range(changed)], total=SIZE)
    resource = Resource(kind=KIND_ENDPOINTS, name="default/big", version=2, digest=2, endpoints=body)
    return resource.SerializeToString()


T = TypeVar("T")


def timed(into: list[float], work: Callable[[], T]) -> T:
    start = time.thread_time()
    done = work()
    into.append((time.thread_time() - start) * 1e3)
    return done


def swap(state: ServiceState, news: News) -> tuple[ServiceState, Picker]:
    """Do what the stream's thread does before a caller sees the change."""
    fresh = state.apply(news)
    return fresh, built(fresh)


def built(state: ServiceState) -> Picker:
    """Return the picker that is built in."""
    return build(Balance(), None, state, Context(now=0.0, rng=random.Random(1))).picker


def measure(state: ServiceState, changed: int, rounds: int) -> list[float]:
    """Return medians in milliseconds: parse, decode, apply with picker, and the reference."""
    content = difference(changed, weight=50)
    figures: list[list[float]] = [[], [], [], []]
    for _ in range(rounds + 2):
        # A message caches what was read of it once: each round reads a fresh one.
        resource = timed(figures[0], functools.partial(Resource.FromString, content))
        news = timed(figures[1], functools.partial(decode, resource))
        timed(figures[2], functools.partial(swap, state, news))
        timed(figures[3], functools.partial(dict, state.endpoints))
    return [statistics.median(samples[2:]) for samples in figures]


def bytes_per_endpoint() -> float:
    """Return what the state and its picker hold for each endpoint, without the strings."""
    content = whole()
    gc.collect()
    tracemalloc.start()
    resource = Resource.FromString(content)
    state = ServiceState("default/big").apply(decode(resource))
    picker = built(state)
    del resource
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    strings = sum(
        sys.getsizeof(e.id) + sys.getsizeof(e.address) + sys.getsizeof(e.zone) for e in state.endpoints.values()
    )
    assert picker is not None
    return (held - strings) / SIZE


def main() -> int:
    print(
        f"{platform.python_implementation()} {platform.python_version()}, protobuf {google.protobuf.__version__} "
        f"({api_implementation.Type()}), {SIZE} endpoints"
    )
    state = ServiceState("default/big").apply(decode(Resource.FromString(whole())))
    kept = True
    print(f"{'changed':>8} {'parse':>8} {'decode':>8} {'apply':>8} {'target':>7} {'dict copy':>10} {'ratio':>6}   (ms)")
    for changed, rounds in ((1, 60), (100, 60), (SIZE, 15)):
        parse, decoded, applied, reference = measure(state, changed, rounds)
        good = applied <= TARGETS_MS[changed]
        kept = kept and good
        print(
            f"{changed:>8} {parse:>8.3f} {decoded:>8.3f} {applied:>8.3f} {TARGETS_MS[changed]:>7} {reference:>10.3f} "
            f"{applied / reference:>6.1f}   {'kept' if good else 'MISSED'}"
        )
    held = bytes_per_endpoint()
    kept = kept and held <= TARGET_BYTES
    print(
        f"{held:.0f} B per endpoint beside its strings, target {TARGET_BYTES}  {'kept' if held <= TARGET_BYTES else 'MISSED'}"
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
