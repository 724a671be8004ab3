"""The mass-failure guard: what it holds, what it lets end, and that it clears by itself."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from controlplane.core.guard import Guard, GuardSettings, Judgement
from controlplane.core.model import ServiceName
from controlplane.core.sessions import Session, State
from tests.unit.core.nouns import ORDERS, session_ref

PAYMENTS = ServiceName("default", "payments")
SETTINGS = GuardSettings(share=0.5, minimum=3, own_minimum=20, memory=10.0, hold=30.0)


def broken(*leases: int, since: float = 0.0) -> list[Session]:
    return [Session(lease, session_ref(lease), 1, since, State.BROKEN, since) for lease in leases]


def judge(
    guard: Guard,
    due: list[Session],
    doubted: Iterable[Session] | None = None,
    *,
    services: frozenset[ServiceName] = frozenset({ORDERS}),
    census: int = 10,
    own: int = 1000,
    now: float = 1.0,
) -> Judgement:
    return guard.judge(
        due,
        due if doubted is None else doubted,
        services_of=lambda session: services,
        census=lambda name: census,
        own=own,
        now=now,
    )


def test_a_few_broken_sessions_are_ended() -> None:
    due = broken(1, 2)
    verdict = judge(Guard(SETTINGS), due, census=2)
    assert (verdict.end, verdict.hold, verdict.protected) == (due, [], {})


@pytest.mark.parametrize(("lost", "census", "held"), [(3, 6, False), (3, 5, True), (5, 10, False), (6, 10, True)])
def test_a_mass_failure_is_more_than_the_share_and_at_least_the_minimum(lost: int, census: int, held: bool) -> None:
    due = broken(*range(1, lost + 1))
    verdict = judge(Guard(SETTINGS), due, census=census)
    assert bool(verdict.hold) is held
    assert bool(verdict.end) is not held
    assert verdict.protected == ({ORDERS: frozenset(range(1, lost + 1))} if held else {})


def test_sessions_that_are_doubted_but_not_due_yet_count() -> None:
    due, doubted = broken(1), broken(2, 3, 4)
    verdict = judge(Guard(SETTINGS), due, [*due, *doubted], census=5)
    assert verdict.hold == due
    assert verdict.protected == {ORDERS: frozenset({1, 2, 3, 4})}


def test_recent_endings_count_until_they_are_forgotten() -> None:
    guard = Guard(SETTINGS)
    # Five of six die one after the other: the guard sees it at the fourth, when more than half are lost.
    for number, expected in [(1, "end"), (2, "end"), (3, "end"), (4, "hold")]:
        verdict = judge(guard, broken(number), census=6 - number + 1, now=float(number))
        assert (verdict.end, verdict.hold)[expected == "hold"], f"session {number} should {expected}"
    verdict = judge(guard, broken(5), census=3, now=4.0 + SETTINGS.memory)
    assert verdict.end, "what was long ago no longer counts"


def test_one_whose_end_failed_counts_once_however_often_it_is_tried() -> None:
    guard, (session,) = Guard(SETTINGS), broken(1)
    for attempt in range(10):
        verdict = judge(guard, [session], census=4, now=1.0 + attempt)
        assert verdict.end == [session], f"attempt {attempt}"


def test_holding_is_bounded_and_then_everything_ends() -> None:
    due = broken(1, 2, 3, since=100.0)
    guard = Guard(SETTINGS)
    assert judge(guard, due, census=3, now=100.0 + SETTINGS.hold - 0.1).hold == due
    last = judge(guard, due, census=3, now=100.0 + SETTINGS.hold)
    assert (last.end, last.hold, last.protected) == (due, [], {})


def test_protection_clears_by_itself_when_sessions_come_back() -> None:
    guard = Guard(SETTINGS)
    sessions = broken(1, 2, 3, 4)
    assert judge(guard, sessions, census=5).protected
    verdict = judge(guard, sessions[:2], census=5, now=2.0)
    assert verdict.protected == {}
    assert verdict.end == sessions[:2]


def test_a_hold_of_zero_turns_the_guard_off() -> None:
    due = broken(1, 2, 3)
    guard = Guard(GuardSettings(hold=0.0))
    assert judge(guard, due, census=3, now=0.0).end == due


def test_the_replica_as_a_whole_is_guarded_too() -> None:
    due = broken(*range(20))
    services = {session: frozenset({ServiceName("default", f"s{session.lease}")}) for session in due}

    def verdict(own: int) -> Judgement:
        return Guard(SETTINGS).judge(
            due, due, services_of=lambda s: services[s], census=lambda name: 1, own=own, now=1.0
        )

    held = verdict(own=39)
    assert held.hold == due
    assert set(held.protected) == {ServiceName("default", f"s{n}") for n in range(20)}
    assert verdict(own=40).end == due


def test_readers_without_instances_are_never_held_and_never_count() -> None:
    due = broken(*range(100))
    verdict = judge(Guard(SETTINGS), due, services=frozenset(), own=100)
    assert (verdict.end, verdict.hold, verdict.protected) == (due, [], {})


def test_a_session_of_two_services_is_held_for_the_one_that_is_over() -> None:
    both = broken(1, 2, 3)
    census = {ORDERS: 100, PAYMENTS: 4}
    verdict = Guard(SETTINGS).judge(
        both,
        both,
        services_of=lambda session: frozenset({ORDERS, PAYMENTS}),
        census=lambda name: census[name],
        own=1000,
        now=1.0,
    )
    assert verdict.hold == both
    assert verdict.protected == {PAYMENTS: frozenset({1, 2, 3})}


def test_a_session_that_was_ended_but_is_still_in_the_view_counts_once() -> None:
    """Three of five that break one after another, faster than the watch tells of their ends, are three of five."""
    guard, everyone = Guard(SETTINGS), {1, 2, 3, 4, 5}
    verdicts = []
    for number, session in enumerate(broken(1, 2, 3)):
        verdicts.append(
            guard.judge(
                [session],
                [session],
                services_of=lambda _: frozenset({ORDERS}),
                census=lambda _: len(everyone - set(guard.ended)),
                own=5,
                now=1.0 + number / 100,
            )
        )
    assert [bool(verdict.hold) for verdict in verdicts] == [False, False, True]
