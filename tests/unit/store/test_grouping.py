"""Which transactions go to etcd together: nobody touches what another one writes, nobody overtakes, nothing is too large."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.store.etcd.grouping import LOOK_AHEAD, MAX_BYTES, MAX_MEMBERS, Shape, choose, may_join, shape
from controlplane.store.etcd.transaction import MAX_OPERATIONS
from controlplane.store.port import Compare, Delete, Operator, Put, Target, Transaction

KEYS = st.sampled_from("abcdefgh")
COMPARES = st.builds(
    Compare, KEYS, st.sampled_from([Target.CREATE_REVISION, Target.MOD_REVISION]), st.just(Operator.EQUAL), st.just(0)
)
# Made once: hundreds of values in each example are some of these four.
VALUES = tuple(bytes(size * 70_000) for size in range(4))
PUTS = st.builds(Put, KEYS, st.sampled_from(VALUES))
TRANSACTIONS = st.builds(
    Transaction,
    st.lists(COMPARES, max_size=3).map(tuple),
    st.lists(st.one_of(PUTS, st.builds(Delete, KEYS)), min_size=1, max_size=70).map(tuple),
    st.lists(KEYS, max_size=2).map(tuple),
)
SHAPES = st.lists(TRANSACTIONS.map(shape), min_size=1, max_size=12)


def clash(one: Shape, other: Shape) -> bool:
    return bool(one.written & other.touched or other.written & one.touched)


def rounds(waiting: list[Shape]) -> list[list[int]]:
    """Who goes in which request, until nobody is left."""
    left, sent = list(range(len(waiting))), []
    while left:
        places = choose(waiting[index] for index in left)
        sent.append([left[place] for place in places])
        left = [index for place, index in enumerate(left) if place not in places]
    return sent


def put(key: str, size: int = 1) -> Shape:
    return shape(Transaction(then=(Put(key, bytes(size)),)))


@given(SHAPES)
def test_no_member_touches_what_another_one_writes(waiting: list[Shape]) -> None:
    for group in rounds(waiting):
        assert not any(clash(waiting[one], waiting[other]) for one, other in combinations(group, 2))


@given(SHAPES)
def test_everybody_goes_once_and_none_before_an_earlier_one_that_it_clashes_with(waiting: list[Shape]) -> None:
    sent = rounds(waiting)
    turn = {index: number for number, group in enumerate(sent) for index in group}
    assert sorted(index for group in sent for index in group) == list(range(len(waiting)))
    assert all(group == sorted(group) for group in sent)
    for one, other in combinations(range(len(waiting)), 2):
        assert turn[one] < turn[other] or not clash(waiting[one], waiting[other])


@given(SHAPES)
def test_a_group_is_never_more_than_etcd_takes_and_of_one_kind(waiting: list[Shape]) -> None:
    for group in rounds(waiting):
        members = [waiting[index] for index in group]
        assert len({member.repeatable for member in members}) == 1
        if len(members) > 1:
            assert len(members) + max(member.operations for member in members) <= MAX_OPERATIONS
            assert sum(member.size for member in members) <= MAX_BYTES


def test_the_first_one_goes_however_large_it_is() -> None:
    huge = shape(Transaction(then=tuple(Put(f"k{i}", bytes(10_000)) for i in range(200))))
    assert choose([huge, put("a"), put("b")]) == [0]


def test_a_crowd_of_strangers_goes_in_full_groups() -> None:
    waiting = [put(f"k{i}") for i in range(MAX_MEMBERS + 1)]
    assert rounds(waiting) == [list(range(MAX_MEMBERS)), [MAX_MEMBERS]]


def test_many_that_want_one_key_hold_up_no_stranger_nearby() -> None:
    assert choose([put("hot"), put("hot"), put("hot"), put("cold")]) == [0, 3]


def test_company_is_looked_for_only_nearby() -> None:
    assert choose([*(put("hot") for _ in range(LOOK_AHEAD)), put("cold")]) == [0]


def test_readers_of_one_guard_go_together() -> None:
    session = Compare("session", Target.CREATE_REVISION, Operator.GREATER, 0)
    instances = [shape(Transaction((session,), (Put(f"instance {i}", b""),))) for i in range(5)]
    assert choose(instances) == [0, 1, 2, 3, 4]


def test_what_writes_nothing_or_a_whole_prefix_takes_no_company() -> None:
    assert not may_join(Transaction(read=("a",)))
    assert not may_join(Transaction(then=(Put("b", b""), Delete("a/", prefix=True))))
    assert may_join(Transaction(then=(Put("b", b""), Delete("a"))))
