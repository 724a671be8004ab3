"""A server's admission: places, a bounded queue, what is important first, and an answer for everybody."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trimtab.core.limiting.adaptive import build_bulkhead
from trimtab.core.limiting.bulkhead import Bulkhead
from trimtab.core.limiting.shedding import ADMITTED, Admission, Priority, Queued, Reason, Shed, Ticket
from trimtab.policy.sections import PRIORITY, Adaptive, Server

LOW, NORMAL, HIGH, CRITICAL = Priority


def admission(places: int = 1, queue: int = 2, wait: float = 1.0) -> Admission:
    return Admission(Server(concurrency=places, queue=queue, wait=wait), Bulkhead(places))


def full(places: int = 1, queue: int = 2, wait: float = 1.0) -> Admission:
    """All places taken, nobody waiting."""
    server = admission(places, queue, wait)
    for _ in range(places):
        assert server.arrive(0.0, NORMAL) is ADMITTED
    return server


def queued(server: Admission, now: float, priority: Priority = NORMAL, deadline: float = inf) -> Ticket:
    decision = server.arrive(now, priority, deadline)
    assert isinstance(decision, Queued)
    assert decision.displaced is None
    return decision.ticket


def test_priorities_are_those_of_the_policy() -> None:
    assert tuple(priority.name.lower() for priority in Priority) == PRIORITY.words


def test_a_call_begins_at_once_while_there_is_a_place() -> None:
    server = admission(places=3)
    assert [server.arrive(0.0, LOW) for _ in range(3)] == [ADMITTED] * 3
    assert isinstance(server.arrive(0.0, LOW), Queued)


def test_who_waits_begins_when_a_place_is_free_in_order_of_arrival() -> None:
    server = full(queue=3)
    tickets = [queued(server, n / 10) for n in range(3)]
    assert [server.leave(0.5 + n / 10) for n in range(4)] == [[tickets[0]], [tickets[1]], [tickets[2]], ()]


def test_the_most_important_begin_first() -> None:
    server = full(queue=4)
    tickets = {priority: queued(server, 0.0, priority) for priority in (NORMAL, CRITICAL, LOW, HIGH)}
    begun = [ticket for _ in range(4) for ticket in server.leave(0.1)]
    assert begun == [tickets[CRITICAL], tickets[HIGH], tickets[NORMAL], tickets[LOW]]


def test_a_full_queue_refuses_who_is_no_more_important() -> None:
    server = full(queue=2)
    queued(server, 0.0, NORMAL)
    queued(server, 0.0, NORMAL)
    for priority in (LOW, NORMAL):
        decision = server.arrive(0.0, priority)
        assert isinstance(decision, Shed)
        assert decision.reason is Reason.FULL


def test_a_full_queue_gives_up_the_newest_of_the_least_important() -> None:
    server = full(queue=3)
    old, new = queued(server, 0.0, LOW), queued(server, 0.1, LOW)
    normal = queued(server, 0.2, NORMAL)
    decisions = [server.arrive(0.3, CRITICAL) for _ in range(4)]
    assert [d.displaced if isinstance(d, Queued) else d.reason for d in decisions] == [new, old, normal, Reason.FULL]


def test_who_waited_too_long_is_told_and_never_begins() -> None:
    server = full(wait=0.5)
    first, second = queued(server, 0.0), queued(server, 0.25)
    assert (first.until, second.until) == (0.5, 0.75)
    assert server.expire(0.4) == []
    assert server.leave(0.5) == [second]
    assert server.expire(0.5) == [first]
    assert server.expire(2.0) == []


def test_nobody_waits_beyond_the_deadline() -> None:
    server = full(wait=5.0)
    ticket = queued(server, 0.0, NORMAL, deadline=0.25)
    assert ticket.until == 0.25
    assert server.leave(0.25) == []
    assert server.expire(0.25) == [ticket]


def test_a_call_whose_deadline_is_over_is_refused_though_there_is_a_place() -> None:
    decision = admission(places=5).arrive(1.0, CRITICAL, deadline=1.0)
    assert isinstance(decision, Shed)
    assert decision.reason is Reason.LATE


def test_those_whose_time_is_over_make_room_in_a_full_queue() -> None:
    server = full(queue=1, wait=0.5)
    late = queued(server, 0.0)
    decision = server.arrive(0.5, LOW)
    assert isinstance(decision, Queued)
    assert decision.displaced is None
    assert server.expire(0.5) == [late]


def test_who_gives_up_is_not_begun() -> None:
    server = full()
    first, second = queued(server, 0.0), queued(server, 0.0)
    assert server.abandon(first)
    assert not server.abandon(first)
    assert server.leave(0.1) == [second]
    assert not server.abandon(second)


@pytest.mark.parametrize(("queue", "wait"), [(0, 1.0), (5, 0.0)])
def test_without_a_queue_or_patience_nobody_waits(queue: int, wait: float) -> None:
    decision = full(queue=queue, wait=wait).arrive(0.0, CRITICAL)
    assert isinstance(decision, Shed)
    assert decision.reason is Reason.FULL


def test_a_higher_limit_lets_those_begin_that_wait() -> None:
    bulkhead = Bulkhead(1)
    server = Admission(Server(concurrency=1, queue=5), bulkhead)
    server.arrive(0.0, NORMAL)
    tickets = [queued(server, 0.0) for _ in range(3)]
    bulkhead.limit = 3
    # Who comes now gets in line, though there is a place.
    queued(server, 0.0, CRITICAL)
    assert server.start(0.0)[1:] == tickets[:1]


def test_a_place_that_nobody_took_cannot_be_left() -> None:
    with pytest.raises(ValueError, match="nobody had taken"):
        admission().leave(0.0, 0.1)


def test_who_gives_up_over_and_over_leaves_nothing_behind() -> None:
    server = full(queue=4, wait=60.0)
    for n in range(10_000):
        server.abandon(queued(server, n / 1000))
    assert len(server._timers) < 200
    assert server.waiting == 0


# When to come again


def test_the_time_to_come_again_is_that_of_those_who_wait() -> None:
    server = full(places=10, queue=100)
    for n in range(200):
        server.leave(n / 100, 0.25)
        server.arrive(n / 100, NORMAL)
    for _ in range(19):
        queued(server, 2.0)
    # Ten places of a quarter second each: forty calls a second. Twenty are to go first.
    assert server.retry_after() == pytest.approx(0.5)


def test_the_time_to_come_again_has_bounds() -> None:
    server = full(places=1, queue=0)
    assert server.retry_after() == 1.0  # nobody knows yet
    server.leave(0.0, 0.000_1)
    assert server.retry_after() == 0.05
    server.arrive(0.0, NORMAL)
    server.leave(0.0, 36_000.0)
    assert server.retry_after() == 30.0


def test_calls_that_say_nothing_do_not_change_the_time_to_come_again() -> None:
    server = full(places=2)
    server.leave(0.0, 0.5)
    before = server.retry_after()
    server.arrive(0.0, NORMAL)
    server.leave(0.0, None)
    server.arrive(0.0, NORMAL)
    server.leave(0.0, 0.001, dropped=True)
    assert server.retry_after() == before == 0.25


# Any order of events

PLACES, ROOM, WAIT = 3, 4, 1.0


class Serving(RuleBasedStateMachine):
    """Against a list of who waits, in the order of arrival."""

    @initialize(fixed=st.booleans())
    def begins(self, fixed: bool) -> None:
        self.most = PLACES if fixed else 8
        moving = None if fixed else Adaptive(algorithm="aimd", initial=PLACES, low=1, high=self.most)
        bulkhead = build_bulkhead(PLACES, moving, random.Random(1))
        assert bulkhead is not None
        self.bulkhead = bulkhead
        self.server = Admission(Server(concurrency=PLACES, queue=ROOM, wait=WAIT), bulkhead)
        self.now = 0.0
        self.running = 0
        self.waiting: list[Ticket] = []

    def answered(self, ticket: Ticket) -> None:
        # Removing fails for a ticket that was answered before, which is what must not be.
        self.waiting.remove(ticket)

    def began(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            alive = [other for other in self.waiting if other.until > self.now]
            assert ticket is max(alive, key=lambda other: other.priority)
            self.answered(ticket)
            self.running += 1

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 1.2]))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @rule(priority=st.sampled_from(Priority), left=st.sampled_from([inf, 0.2, 0.0]))
    def arrive(self, priority: Priority, left: float) -> None:
        decision = self.server.arrive(self.now, priority, self.now + left)
        alive = [ticket for ticket in self.waiting if ticket.until > self.now]
        if decision is ADMITTED:
            assert left > 0.0
            self.running += 1
        elif isinstance(decision, Shed):
            assert 0.05 <= decision.retry_after <= 30.0
            if decision.reason is Reason.FULL:
                assert len(alive) == ROOM
                assert all(ticket.priority >= priority for ticket in alive)
            else:
                assert left == 0.0
        else:
            assert decision.ticket.until == self.now + min(WAIT, left)
            if decision.displaced is not None:
                assert len(alive) == ROOM
                least = min(ticket.priority for ticket in alive)
                assert decision.displaced is [ticket for ticket in alive if ticket.priority == least][-1]
                assert least < priority
                self.answered(decision.displaced)
            self.waiting.append(decision.ticket)

    @precondition(lambda self: self.running)
    @rule(seconds=st.none() | st.floats(0.0, 5.0), dropped=st.booleans(), calls=st.integers(1, 12))
    def leave(self, seconds: float | None, dropped: bool, calls: int) -> None:
        for _ in range(min(calls, self.running)):
            self.running -= 1
            self.began(list(self.server.leave(self.now, seconds, dropped)))

    @rule()
    def expire(self) -> None:
        for ticket in self.server.expire(self.now):
            assert ticket.until <= self.now
            self.answered(ticket)
        assert all(ticket.until > self.now for ticket in self.waiting)

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 99))
    def abandon(self, which: int) -> None:
        ticket = self.waiting[which % len(self.waiting)]
        if self.server.abandon(ticket):
            self.answered(ticket)
        else:
            assert ticket.until <= self.now

    @invariant()
    def no_more_run_or_wait_than_may(self) -> None:
        assert self.bulkhead.in_flight == self.running <= self.most
        assert 0 <= self.server.waiting <= min(ROOM, len(self.waiting))

    @invariant()
    def a_place_is_free_only_when_nobody_waits(self) -> None:
        assert not self.server.waiting or self.running >= self.bulkhead.limit

    def teardown(self) -> None:
        if not hasattr(self, "server"):
            return
        while self.running:
            self.leave(0.1, False, 1)
        self.expire()
        assert self.waiting == []
        assert self.server.waiting == self.bulkhead.in_flight == 0


Serving.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestServing = Serving.TestCase
