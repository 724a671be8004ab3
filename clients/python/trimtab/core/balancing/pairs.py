"""Two candidates for each call, for the power of two choices (Mitzenmacher 2001).

Drawing at random when a call comes costs more than all the rest of a pick, so pairs are drawn beforehand. Few endpoints
are shuffled once, and the stream goes round and round, each round with another distance between the two of a pair. Every
ordered pair comes up once in ``n - 1`` rounds, and each endpoint twice in a round, so that between equals the stream is a
rotation. Of many, or by weight, pairs are drawn at random, some at a time.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, cycle, repeat
from typing import TypeVar

from trimtab.core.backoff import Rng
from trimtab.core.endpoints import Endpoint

T = TypeVar("T")

SHUFFLED = 256  # endpoints: shuffling them costs no more than some dozen microseconds
_KEPT = 24  # endpoints: all their pairs together take no more than some dozen kilobytes
_DRAWN = 64  # pairs at a time


def pairs(endpoints: Sequence[Endpoint], rng: Rng, candidate: Callable[[Endpoint], T]) -> Iterator[tuple[T, T]]:
    """Return an endless stream of two different endpoints each, as ``candidate`` shows them. Empty when there is none.

    A single one is paired with itself, as is one of more than ``SHUFFLED`` once in so many pairs as there are endpoints.
    """
    count = len(endpoints)
    random = rng.random
    if count > SHUFFLED:

        def draw(_: None) -> Iterator[tuple[T, T]]:
            candidates = [candidate(endpoints[int(random() * count)]) for _ in range(2 * _DRAWN)]
            return zip(candidates[::2], candidates[1::2], strict=True)

        return chain.from_iterable(map(draw, repeat(None)))
    candidates = list(map(candidate, endpoints))
    if count < 2:
        return cycle([(only, only) for only in candidates])
    order = sorted(candidates, key=lambda _: random())

    def turn(distance: int) -> Iterator[tuple[T, T]]:
        return zip(order, order[distance:] + order[:distance], strict=True)

    if count <= _KEPT:
        return cycle(chain.from_iterable(map(turn, range(1, count))))
    return chain.from_iterable(map(turn, cycle(range(1, count))))


def weighted_pairs(
    endpoints: Sequence[Endpoint], weights: Sequence[float], rng: Rng, candidate: Callable[[Endpoint], T]
) -> Iterator[tuple[T, T]]:
    """Return an endless stream of pairs, the first of each drawn by weight, the second evenly from the others.

    What weighs nothing is never drawn; a single endpoint is paired with itself. Empty when nobody weighs anything.
    """
    drawn = [endpoint for endpoint, weight in zip(endpoints, weights, strict=True) if weight > 0]
    if len(drawn) < 2:
        return cycle([(only, only) for only in map(candidate, drawn)])
    up_to = list(accumulate(weight for weight in weights if weight > 0))
    last, total = len(drawn) - 1, up_to[-1]
    random = rng.random

    def draw(_: None) -> Iterable[tuple[T, T]]:
        firsts = [bisect(up_to, random() * total, 0, last) for _ in range(_DRAWN)]
        seconds = [int(random() * last) for _ in range(_DRAWN)]
        return [
            (candidate(drawn[a]), candidate(drawn[b + 1 if b >= a else b]))
            for a, b in zip(firsts, seconds, strict=True)
        ]

    return chain.from_iterable(map(draw, repeat(None)))
