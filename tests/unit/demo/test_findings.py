"""The demo's verdicts: each is kept by what was promised, and broken by less."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.demo.findings import Applied, harm, in_force, no_failures, share_of, unpicked
from deploy.demo.traffic import Call, Traffic, answers, refused, shares, stood_in

APPLIED = Applied(revision=7, entered=10.0, answered=10.5)


def call(began: float, by: str = "orders-1", *, shopper: str = "anna", ok: bool = True, **more: Any) -> Call:
    """A call that took 10 ms."""
    error = "" if ok else "ReadTimeout: timed out"
    return Call(shopper, "order", began, began, began + 0.01, ok, [by] if by else [], None, error, **more)


def rolled_out(until: float, *, old: int = 6) -> list[Call]:
    """Anna has got the policy at once, Bert still calls under the older one at ``until``."""
    return [
        call(9.0, policy=old),
        call(10.45, policy=7),
        call(until, policy=old, shopper="bert"),
        call(13.0, policy=7, shopper="bert"),
    ]


@pytest.mark.parametrize(
    ("until", "measured", "kept"),
    [
        (10.47, "0.47 s after Enter; the answer took 0.50 s", True),
        (11.25, "1.25 s after Enter; the answer took 0.50 s", True),
        (11.75, "1.75 s after Enter; the answer took 0.50 s", False),
    ],
)
def test_a_policy_is_in_force_once_no_call_begins_under_an_older_one(until: float, measured: str, kept: bool) -> None:
    found = in_force("it holds", rolled_out(until), APPLIED, ("anna", "bert"))
    assert (found.measured, found.kept) == (measured, kept)


def test_a_policy_that_is_left_again_is_not_in_force() -> None:
    calls = [*rolled_out(10.47), call(14.0, policy=6)]
    assert not in_force("it holds", calls, APPLIED, ("anna", "bert")).kept


def test_a_policy_that_a_shopper_never_used_is_not_in_force() -> None:
    found = in_force("it holds", rolled_out(10.47), APPLIED, ("anna", "bert", "carl"))
    assert (found.measured, found.kept) == ("never in carl", False)


def test_a_policy_that_is_withdrawn_leaves_what_is_built_in() -> None:
    calls = [call(10.1, policy=6), call(10.6, policy=0)]
    assert in_force("nothing holds", calls, Applied(0, 10.0, 10.5), ("anna",)).kept
    assert not in_force("nothing holds", [*calls, call(12.0, policy=6)], Applied(0, 10.0, 10.5), ("anna",)).kept


@pytest.mark.parametrize(("late", "kept"), [(1.9, True), (2.1, False)])
def test_a_failure_is_excused_only_just_after_its_cause(late: float, kept: bool) -> None:
    calls = [call(10.0), call(10.0 + late, ok=False)]
    assert harm(calls, 10.0, 2.0).kept is kept
    assert unpicked("it", calls, "orders-1", 10.0, 2.0).kept is kept
    assert not no_failures(calls).kept


def test_silence_is_not_the_absence_of_failures() -> None:
    assert not no_failures([]).kept


def test_a_share_is_one_of_the_answers_of_instances() -> None:
    calls = [call(1.0, "orders-1"), call(1.0, "orders-2"), call(1.0, "orders-2"), call(1.0, "orders-1", ok=False)]
    calls.append(call(1.0, "orders-1", fallback="cache", age=3.0))
    assert shares(calls) == {"orders-1": 1 / 3, "orders-2": 2 / 3}
    assert share_of("it", "orders-1", calls, 0.4, 0.1).kept
    assert not share_of("it", "orders-1", calls, 0.5, 0.1).kept
    assert not share_of("it", "orders-3", calls, 0.5, 0.1).kept
    assert len(list(answers(calls, "orders-1"))) == 1


def test_a_refused_call_that_a_fallback_answers_is_not_lost() -> None:
    lost = call(1.0, "", ok=False, refused="breaker")
    saved = call(1.0, "", refused="breaker", fallback="cache", age=3.0)
    assert refused([lost, saved]) == [lost]
    assert stood_in([lost, saved]) == [saved]


def test_the_last_second_is_found_although_shoppers_report_one_after_the_other() -> None:
    traffic = Traffic()
    early, mine, yours, late = call(1.0), call(2.04), call(1.98), call(2.9)
    traffic.calls += [early, mine, yours, late]
    assert traffic.lately(2.95, 1.0) == [mine, yours]
