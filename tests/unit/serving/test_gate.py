"""The gate of a service: who is let in, who waits, who is refused, and what a change of policy does to all of them."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trimtab.core.limiting.shedding import Priority
from trimtab.core.serving import Arrival
from trimtab.errors import DeadlineExceeded, Overloaded, RateLimited, Rejected
from trimtab.gate import Gate, Visit

from tests.unit.serving.served import SERVICE, ServedMesh, release

ONE_PLACE = "default: {server: {concurrency: 1, queue: 2, wait: 1s}}"


def gate(policy: str | None) -> Gate:
    return ServedMesh(policy).orders


def enact(orders: Gate, policy: str | None, now: float = 0.0) -> None:
    orders.enact(SERVICE, release(policy, 2) if policy else None, now)


def arrive(orders: Gate, now: float, **said: object) -> Visit:
    visit = orders.arrive(Arrival(method="GET", path="/", **said), now)  # type: ignore[arg-type]
    assert visit is not None
    return visit


class Bell:
    """Counts how often somebody is woken."""

    def __init__(self, *visits: Visit) -> None:
        self.rung = 0
        for visit in visits:
            visit.wake = self.ring

    def ring(self) -> None:
        self.rung += 1


def test_without_a_policy_everybody_may_in_and_nobody_is_counted() -> None:
    assert gate(None).arrive(Arrival(), 0.0) is None
    assert gate("default: {timeout: 1s}").arrive(Arrival(), 0.0) is None


def test_a_call_whose_deadline_is_over_is_refused_with_or_without_a_policy() -> None:
    for policy in (None, ONE_PLACE):
        with pytest.raises(DeadlineExceeded, match="over before it could begin"):
            gate(policy).arrive(Arrival(deadline=5.0), 5.0)


def test_who_finds_no_place_waits_until_one_is_left() -> None:
    orders = gate(ONE_PLACE)
    first, second = arrive(orders, 0.0), arrive(orders, 0.1)
    assert (first.until, second.until) == (None, 1.1)
    bell = Bell(second)
    first.leave(0.5)
    assert bell.rung == 1
    second.proceed(0.5)
    assert second.until is None


def test_who_waits_too_long_is_refused_and_told_when_to_come_back() -> None:
    orders = gate(ONE_PLACE)
    arrive(orders, 0.0)
    second = arrive(orders, 0.0)
    second.proceed(0.5)
    with pytest.raises(Overloaded, match="no place came free in time") as caught:
        second.proceed(1.0)
    assert caught.value.retry_after > 0
    assert caught.value.service == "default/orders"


def test_who_waits_beyond_its_deadline_is_told_so() -> None:
    orders = gate(ONE_PLACE)
    arrive(orders, 0.0)
    second = arrive(orders, 0.0, deadline=0.25)
    assert second.until == 0.25
    with pytest.raises(DeadlineExceeded):
        second.proceed(0.25)


def test_important_calls_jump_the_queue_and_the_least_important_loses_its_place() -> None:
    orders = gate(ONE_PLACE)
    first = arrive(orders, 0.0)
    low, normal = arrive(orders, 0.0, priority="low"), arrive(orders, 0.0)
    bell = Bell(low)
    critical = arrive(orders, 0.0, priority="critical")
    assert bell.rung == 1
    with pytest.raises(Overloaded, match="more important"):
        low.proceed(0.0)
    first.leave(0.1)
    assert (critical.until, normal.until) == (None, 1.0)
    with pytest.raises(Overloaded, match="waiting already"):
        for _ in range(3):
            arrive(orders, 0.2, priority="low")


def test_a_call_without_a_priority_has_that_of_the_policy() -> None:
    orders = gate(f"{ONE_PLACE}\nroutes: [{{match: {{path: /batch/*}}, priority: low}}]")
    arrive(orders, 0.0)
    batch = orders.arrive(Arrival("GET", "/batch/7"), 0.0)
    assert batch is not None
    assert batch.priority is Priority.LOW
    assert arrive(orders, 0.0).priority is Priority.NORMAL


def test_a_rate_limit_refuses_with_the_time_of_the_next_place() -> None:
    orders = gate("default: {server: {limit: {rate: 2/s, burst: 2}}}")
    assert [arrive(orders, 0.0).until for _ in range(2)] == [None, None]
    with pytest.raises(RateLimited) as caught:
        arrive(orders, 0.0)
    assert caught.value.retry_after == pytest.approx(0.5)
    assert arrive(orders, caught.value.retry_after).until is None


def test_a_rate_limit_with_patience_gives_turns_and_takes_back_those_of_who_leaves() -> None:
    orders = gate("default: {server: {limit: {rate: 1/s, wait: 2s}}}")
    arrive(orders, 0.0)
    second = arrive(orders, 0.0)
    assert second.until == pytest.approx(1.0)
    second.leave(0.5)
    third = arrive(orders, 0.5)
    assert third.until == pytest.approx(1.0)
    third.proceed(0.9)
    assert third.until is not None
    third.proceed(1.0)
    assert third.until is None


def test_a_turn_beyond_the_deadline_is_not_taken() -> None:
    orders = gate("default: {server: {limit: {rate: 1/s, wait: 5s}}}")
    arrive(orders, 0.0)
    with pytest.raises(DeadlineExceeded):
        arrive(orders, 0.0, deadline=0.5)
    assert arrive(orders, 0.0).until == pytest.approx(1.0)


def test_a_rate_limit_for_each_key_goes_by_a_header() -> None:
    orders = gate("default: {server: {limit: {rate: 1/s, per: key, key: {header: x-tenant}}}}")
    assert orders.needs_headers
    arrive(orders, 0.0, headers={"x-tenant": "a"})
    arrive(orders, 0.0, headers={"x-tenant": "b"})
    with pytest.raises(RateLimited):
        arrive(orders, 0.0, headers={"x-tenant": "a"})


def test_a_call_that_finds_no_place_gives_its_turn_back() -> None:
    orders = gate("default: {server: {concurrency: 1, queue: 0, limit: {rate: 1/s, burst: 2}}}")
    first = arrive(orders, 0.0)
    with pytest.raises(Overloaded):
        arrive(orders, 0.0)
    first.leave(0.0)
    assert arrive(orders, 0.0).until is None


def test_routes_have_places_of_their_own() -> None:
    orders = gate(f"{ONE_PLACE}\nroutes: [{{match: {{path: /heavy}}, server: {{concurrency: 1, queue: 0}}}}]")
    assert arrive(orders, 0.0).until is None
    assert orders.arrive(Arrival("GET", "/heavy"), 0.0) is not None
    with pytest.raises(Overloaded):
        orders.arrive(Arrival("GET", "/heavy"), 0.0)


def test_a_raised_limit_lets_those_in_that_wait() -> None:
    orders = gate(ONE_PLACE)
    first = arrive(orders, 0.0)
    waiting = [arrive(orders, 0.0) for _ in range(2)]
    bell = Bell(*waiting)
    enact(orders, "default: {server: {concurrency: 2, queue: 2, wait: 1s}}")
    assert bell.rung == 1
    assert [visit.until is None for visit in waiting] == [True, False]
    # Two are inside, so the third needs one of them to leave: nobody was forgotten by the change.
    first.leave(0.1)
    assert waiting[1].until is None


def test_a_lowered_limit_counts_those_that_are_inside() -> None:
    orders = gate("default: {server: {concurrency: 3, queue: 5, wait: 1s}}")
    inside = [arrive(orders, 0.0) for _ in range(3)]
    enact(orders, ONE_PLACE)
    late = arrive(orders, 0.0)
    for visit in inside[:2]:
        visit.leave(0.1)
        assert late.until is not None
    inside[2].leave(0.1)
    assert late.until is None


@pytest.mark.parametrize("policy", [None, "default: {server: off}", "default: {server: {limit: {rate: 1000/s}}}"])
def test_a_limit_that_is_taken_away_lets_everybody_in(policy: str | None) -> None:
    orders = gate(ONE_PLACE)
    first = arrive(orders, 0.0)
    waiting = [arrive(orders, 0.0) for _ in range(2)]
    enact(orders, policy)
    assert [visit.until for visit in waiting] == [None, None]
    for visit in (first, *waiting):
        visit.leave(0.1)


def test_a_route_that_is_put_before_another_takes_nobody_of_it_over() -> None:
    charge, refund = (
        f"{{match: {{method: {method}}}, server: {{concurrency: 1, queue: 0}}}}" for method in ("Charge", "Refund")
    )
    orders = gate(f"routes: [{charge}]")
    orders.arrive(Arrival("Charge"), 0.0)
    enact(orders, f"routes: [{refund}, {charge}]")
    assert orders.arrive(Arrival("Refund"), 1.0) is not None
    with pytest.raises(Overloaded):
        orders.arrive(Arrival("Charge"), 1.0)
    assert orders.read().places == {"default/orders routes[0]": (1, 1), "default/orders routes[1]": (1, 1)}


def test_a_change_of_something_else_leaves_a_bucket_as_full_as_it_was() -> None:
    orders = gate("default: {server: {limit: {rate: 1/s}}}")
    arrive(orders, 0.0)
    enact(orders, "default: {timeout: 2s, server: {limit: {rate: 1/s}}}")
    with pytest.raises(RateLimited):
        arrive(orders, 0.0)


@pytest.mark.parametrize("per", ["", ", per: method"])
def test_a_changed_rate_gives_no_burst_of_its_own(per: str) -> None:
    orders = gate(f"default: {{server: {{limit: {{rate: 1/s{per}}}}}}}")
    arrive(orders, 0.0)
    enact(orders, f"default: {{server: {{limit: {{rate: 2/s{per}}}}}}}")
    with pytest.raises(RateLimited):
        arrive(orders, 0.0)
    assert arrive(orders, 0.5).until is None
    # Of another kind, it begins anew.
    enact(orders, "default: {server: {limit: {rate: 2/s, warm_up: 10s}}}", 0.5)
    assert arrive(orders, 0.5).until is None


def test_a_limit_that_was_found_goes_on_from_where_it_stands() -> None:
    orders = gate("default: {server: {adaptive: {algorithm: aimd, initial: 1, low: 1}}}")
    for step in range(200):
        arrive(orders, step * 0.2).leave(step * 0.2 + 0.1)
    ((_, found),) = orders.read().places.values()
    assert found > 1
    enact(orders, "default: {server: {adaptive: {algorithm: aimd, initial: 1, low: 1, high: 100}}}", 50.0)
    assert list(orders.read().places.values()) == [(0, found)]


def test_leaving_twice_is_leaving_once() -> None:
    orders = gate(ONE_PLACE)
    first, second, third = (arrive(orders, 0.0) for _ in range(3))
    first.leave(0.1)
    first.leave(0.1)
    assert (second.until, third.until) == (None, 1.0)


def test_a_forked_child_begins_with_nobody_inside_and_follows_the_policies_again() -> None:
    asked: list[str] = []
    orders = Gate(SERVICE, {SERVICE: release(ONE_PLACE)}, lambda: asked.append("wake"), random.Random(7))
    arrive(orders, 0.0)
    assert asked == []
    orders.revive()
    assert arrive(orders, 0.0).until is None
    assert arrive(orders, 0.0).until is not None
    assert asked == ["wake"]


class AnyOrder(RuleBasedStateMachine):
    """Calls that come, wait, give up and leave in any order, under policies that change: places are never lost or invented."""

    POLICIES = (
        None,
        "default: {server: off}",
        *(f"default: {{server: {{concurrency: {n}, queue: 3, wait: 1s}}}}" for n in (1, 2, 4)),
    )

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.places = 1
        self.orders = gate(self.POLICIES[2])
        self.visits: list[Visit] = []

    def inside(self) -> list[Visit]:
        return [visit for visit in self.visits if visit.until is None]

    @rule(priority=st.sampled_from(["", "low", "high", "critical"]), patience=st.sampled_from([inf, 0.3]))
    def arrives(self, priority: str, patience: float) -> None:
        try:
            visit = self.orders.arrive(Arrival(priority=priority, deadline=self.now + patience), self.now)
        except Rejected:
            assert len(self.inside()) >= self.places
            return
        if visit is not None:
            self.visits.append(visit)
            if visit.until is None:
                assert sum(other.admission is visit.admission for other in self.inside()) <= self.places

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def goes(self, data: st.DataObject) -> None:
        visit = data.draw(st.sampled_from(self.visits))
        self.visits.remove(visit)
        visit.leave(self.now, data.draw(st.booleans()))

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.1]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for visit in list(self.visits):
            try:
                visit.proceed(self.now)
            except (Rejected, DeadlineExceeded):
                visit.leave(self.now)
                self.visits.remove(visit)

    @rule(index=st.integers(0, 4))
    def the_policy_changes(self, index: int) -> None:
        enact(self.orders, self.POLICIES[index], self.now)
        self.places = (10**9, 10**9, 1, 2, 4)[index]

    @invariant()
    def nobody_waits_beside_a_free_place(self) -> None:
        waiting = [v for v in self.visits if v.until is not None and v.refusal is None and v.until > self.now]
        assert not waiting or len(self.inside()) >= self.places

    def teardown(self) -> None:
        for visit in self.visits:
            visit.leave(self.now)
        assert not self.orders._waiting
        for entrance in self.orders._rules._entrances.values():
            assert entrance.admission is None or entrance.admission.bulkhead.in_flight == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
