"""Ring hash and Maglev: the tables of the sources, shares by weight, and few keys that move."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trimtab.core.balancing.hashing import hash_key
from trimtab.core.balancing.maglev import Maglev, table
from trimtab.core.balancing.ring_hash import RingHash, by_target, ring
from trimtab.core.endpoints import Endpoint
from trimtab.errors import MissingExtra

from tests.support.missing import without_xxhash
from tests.unit.balancing.nouns import counts, endpoint, fleet, hosts, keys

Make = Callable[..., RingHash | Maglev]
BOTH = pytest.mark.parametrize("make", [RingHash, Maglev])

SIX = hosts(90, 91, 92, 93, 94, 95)


def test_the_hash_is_xxh64() -> None:
    # the specification's own values (Cyan4973/xxHash doc/xxhash_spec.md and its sanity checks)
    assert hash_key("") == 0xEF46DB3751D8E999
    assert hash_key("a") == 0xD24EC4F1A98C6E5B
    assert hash_key("a", 1) != hash_key("a")


def test_without_xxhash_a_key_says_what_to_install() -> None:
    with without_xxhash(), pytest.raises(MissingExtra, match=r"pip install 'trimtab\[hash\]'"):
        hash_key("a")
    assert hash_key("a")


# envoyproxy/envoy test/extensions/load_balancing_policies/ring_hash/ring_hash_lb_test.cc, Basic
RING = [
    (94, 833437586790550860), (92, 928266305478181108), (90, 1033482794131418490), (95, 3551244743356806947),
    (93, 3851675632748031481), (91, 5583722120771150861), (91, 6311230543546372928), (93, 7700377290971790572),
    (95, 13144177310400110813), (92, 13444792449719432967), (94, 15516499411664133160), (90, 16117243373044804889),
]  # fmt: skip


def test_the_ring_is_the_known_one() -> None:
    endpoints, members = by_target(SIX, None)
    positions, of = ring(members, 12)
    assert [(endpoints[index].port, at) for at, index in zip(positions, of, strict=True)] == RING


# the same test: the first position at or behind the key, round the end to the first
@pytest.mark.parametrize(
    ("key", "port"), [(0, 94), (2**64 - 1, 94), (3551244743356806947, 95), (3551244743356806948, 93)]
)
def test_a_key_finds_its_place_on_the_ring(key: int, port: int) -> None:
    picked = RingHash(SIX, None, random.Random(1), 12).pick(0.0, key)
    assert picked is not None
    assert picked.port == port


@example(weights=[11, 11, 14, 30, 17], minimum=1024)
@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.integers(1, 30), min_size=1, max_size=12), minimum=st.sampled_from([12, 64, 1024]))
def test_a_ring_has_each_member_as_often_as_it_weighs(weights: list[int], minimum: int) -> None:
    members = tuple((f"h{n:02}", float(weight)) for n, weight in enumerate(weights))
    positions, of = ring.__wrapped__(members, minimum, 4096)
    assert list(positions) == sorted(positions)
    assert minimum <= len(positions) <= 4096
    placed = Counter(of)
    for index, weight in enumerate(weights):
        # Both ends of a member's positions are rounded up, which is less than one; the ring as a whole is, too, of which it
        # has its share.
        share = weight / sum(weights)
        assert abs(placed[index] - len(positions) * share) < 1 + share


def test_a_ring_has_a_place_for_everybody_of_more_than_it_has_positions() -> None:
    members = tuple((f"h{n:04}", 1.0) for n in range(5000))
    assert len(set(ring(members).members)) == 5000


def test_a_ring_is_never_larger_than_its_maximum() -> None:
    assert len(ring((("a", 1.0), ("b", 10_000.0)), 1024, 4096).positions) == 4096


# envoyproxy/envoy test/extensions/load_balancing_policies/maglev/maglev_lb_test.cc, Basic and Weighted
@pytest.mark.parametrize(
    ("endpoints", "weights", "expected"),
    [
        (SIX, {}, [2, 4, 0, 1, 5, 0, 3]),
        (hosts(90, 91), {"91": 2.0}, [1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1]),
        (hosts(90), {"90": 7.0}, [0] * 17),
    ],
)
def test_the_table_is_the_known_one(endpoints: list[Endpoint], weights: dict[str, float], expected: list[int]) -> None:
    picker = Maglev(endpoints, weights, random.Random(1), len(expected))
    for key in range(3 * len(expected)):
        assert picker.pick(0.0, key) == endpoints[expected[key % len(expected)]]


def test_a_table_of_the_usual_size_is_shared_by_weight_to_the_place() -> None:
    # maglev_lb_test.cc: 1 to 2 of 65,537
    assert Counter(table((("127.0.0.1:90", 1.0), ("127.0.0.1:91", 2.0)))) == {0: 21_846, 1: 43_691}


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.integers(1, 40), min_size=1, max_size=8), size=st.sampled_from([7, 251, 1009]))
def test_turns_are_those_of_the_source(weights: list[int], size: int) -> None:
    # maglev_lb.cc: in each iteration, whoever has iteration · weight >= target, which grows by the greatest weight
    members = tuple((f"h{n}", float(weight)) for n, weight in enumerate(weights))
    taken, targets, iteration = Counter[int](), [0] * len(weights), 1
    while taken.total() < size:
        for index, weight in enumerate(weights):
            if iteration * weight >= targets[index] and taken.total() < size:
                targets[index] += max(weights)
                taken[index] += 1
        iteration += 1
    assert Counter(table.__wrapped__(members, size)) == taken


@BOTH
def test_a_key_stays_with_its_endpoint(make: Make) -> None:
    endpoints = fleet(10)
    shuffled = random.Random(3).sample(endpoints, 10)
    one, other = make(endpoints, None, random.Random(1)), make(shuffled, None, random.Random(2))
    for _, key in zip(range(500), keys(), strict=False):
        assert one.pick(0.0, key) == other.pick(9.0, key)


@BOTH
def test_a_call_without_a_key_goes_anywhere(make: Make) -> None:
    assert len(counts(make(fleet(10), None, random.Random(1)), 1000)) == 10


# Beside the keys of the one that left. A ring keeps its size: all others get its positions, and with them keys of each
# other. Of Maglev see NSDI 2016, section 5.3.
@pytest.mark.parametrize(("make", "others"), [(RingHash, 1.5), (Maglev, 0.25)])
@settings(max_examples=15, deadline=None)
@given(count=st.integers(3, 12), leaver=st.integers(0, 11))
def test_few_keys_move_when_an_endpoint_leaves(make: Make, others: float, count: int, leaver: int) -> None:
    endpoints = fleet(count)
    gone = endpoints[leaver % count]
    before = make(endpoints, None, random.Random(1))
    after = make([e for e in endpoints if e != gone], None, random.Random(1))
    moved = stayed = 0
    for _, key in zip(range(1000), keys(leaver), strict=False):
        was, now = before.pick(0.0, key), after.pick(0.0, key)
        assert now != gone
        if was != gone:
            moved, stayed = moved + (was != now), stayed + (was == now)
    assert moved <= others / count * (moved + stayed)


# The spread of a ring is by chance; a table's is even.
@pytest.mark.parametrize(("make", "within"), [(RingHash, 0.4), (Maglev, 0.1)])
def test_keys_are_shared_by_weight(make: Make, within: float) -> None:
    endpoints = [endpoint("a", 100), endpoint("b", 200), endpoint("c", 300)]
    shares = counts(make(endpoints, None, random.Random(1)), 12_000, keys())
    for each in endpoints:
        assert shares[each.id] == pytest.approx(12_000 * each.weight / 600, rel=within)


@BOTH
def test_what_weighs_nothing_has_no_place(make: Make) -> None:
    assert counts(make(fleet(3), {"e1": 0.0}, random.Random(1)), 500, keys()).keys() == {"e0", "e2"}


@BOTH
def test_nobody_there_is_nobody_to_pick(make: Make) -> None:
    assert make([], None, random.Random(1)).pick(0.0, 5) is None


def test_the_same_members_share_one_table() -> None:
    first = Maglev(fleet(4), None, random.Random(1))
    made = table.cache_info().misses
    Maglev([e._replace(metadata={"build": "2"}) for e in fleet(4)], None, random.Random(2))
    assert table.cache_info().misses == made
    assert first.pick(0.0, 1) is not None
