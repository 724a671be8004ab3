"""Outlier detection: gRFC A50's own answers, the cap that is never passed, and that everybody comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from trimtab.core.breaking.outlier import OutlierDetector
from trimtab.policy.sections import FailurePercentage, Outlier, SuccessRate

ROW = Outlier(max_ejected=0.5)
RATE = Outlier(consecutive=None, success_rate=SuccessRate(), max_ejected=0.5)
SHARE = Outlier(consecutive=None, failure_percentage=FailurePercentage(), max_ejected=0.5)


def names(count: int) -> list[str]:
    return [f"e{number}" for number in range(count)]


def detector(settings: Outlier, count: int) -> OutlierDetector:
    made = OutlierDetector(settings, names(count))
    made.sweep(0.0)
    return made


def calls(detector: OutlierDetector, per_cent: Mapping[str, int], volume: int = 100, now: float = 1.0) -> None:
    """``volume`` calls to each endpoint, of which so many per cent go well; the good ones last, to end every row."""
    for id_, good in per_cent.items():
        for number in range(volume):
            detector.record(id_, number >= volume - volume * good // 100, now)


class TestFailuresInARow:
    def test_the_fifth_ejects_at_once(self) -> None:
        outlier = detector(ROW, 4)
        assert [outlier.record("e0", False, 1.0) for _ in range(5)] == [False] * 4 + [True]
        assert outlier.ejected == {"e0"}

    def test_a_success_ends_the_row(self) -> None:
        outlier = detector(ROW, 4)
        for ok in (False, False, False, False, True, False, False, False, False):
            assert not outlier.record("e0", ok, 1.0)

    def test_late_failures_of_who_is_gone_make_no_majority_of_those_that_are_left(self) -> None:
        outlier = detector(ROW, 4)
        outlier.retain(["e2", "e3"])
        for gone in ("e0", "e1"):
            outlier.record(gone, False, 1.0)
        assert [outlier.record("e2", False, 2.0) for _ in range(5)] == [False] * 4 + [True]
        assert outlier.ejected == {"e2"}

    def test_nothing_is_judged_that_is_not_asked_for(self) -> None:
        outlier = detector(RATE, 4)
        assert not any(outlier.record("e0", False, 1.0) for _ in range(99))

    def test_one_that_there_was_no_room_for_goes_when_there_is(self) -> None:
        outlier = detector(replace(ROW, max_ejected=0.1), 4)
        for id_ in ("e0", "e1"):
            for _ in range(5):
                outlier.record(id_, False, 1.0)
        assert outlier.ejected == {"e0"}
        outlier.sweep(40.0)
        assert outlier.ejected == set()
        assert outlier.record("e1", False, 41.0)
        assert outlier.ejected == {"e1"}


class TestAServiceThatFailsAsAWhole:
    def test_has_no_outliers(self) -> None:
        outlier = detector(ROW, 6)
        for _ in range(9):
            assert not any(outlier.record(id_, False, 1.0) for id_ in names(6))

    def test_two_of_six_are_no_whole(self) -> None:
        outlier = detector(ROW, 6)
        for _ in range(5):
            for id_ in ("e0", "e1"):
                outlier.record(id_, False, 1.0)
        assert outlier.ejected == {"e0", "e1"}

    def test_takes_back_who_was_ejected_before_the_others_failed(self) -> None:
        outlier = detector(ROW, 6)
        for _ in range(5):
            outlier.record("e0", False, 1.0)
        assert [outlier.record(id_, False, 2.0) for id_ in ("e1", "e2", "e3")] == [False, False, True]
        assert outlier.ejected == set()

    def test_may_be_the_one_endpoint_that_is_left(self) -> None:
        outlier = detector(ROW, 2)
        for _ in range(5):
            outlier.record("e0", False, 1.0)
        assert [outlier.record("e1", False, 2.0) for _ in range(5)] == [False] * 4 + [True]
        assert outlier.ejected == set()

    def test_does_not_show_in_late_answers_of_who_was_ejected(self) -> None:
        outlier = detector(ROW, 3)
        for _ in range(9):
            outlier.record("e0", False, 1.0)
        assert not outlier.record("e1", False, 1.0)
        assert outlier.ejected == {"e0"}

    def test_has_outliers_again_when_the_others_are_well(self) -> None:
        outlier = detector(ROW, 6)
        for ok in (False, True):
            for id_ in names(6)[1:]:
                outlier.record(id_, ok, 1.0)
        assert [outlier.record("e0", False, 2.0) for _ in range(5)] == [False] * 4 + [True]

    def test_keeps_who_was_taken_back_for_as_long_as_an_ejection_would_last(self) -> None:
        # Else the two would overload each other in turn.
        outlier = detector(ROW, 2)
        for now, id_ in ((1.0, "e0"), (2.0, "e1")):
            for _ in range(5):
                outlier.record(id_, False, now)
        assert outlier.ejected == set()
        outlier.record("e1", True, 3.0)
        assert not any(outlier.record("e0", False, now / 10) for now in range(30, 320))
        assert outlier.record("e0", False, 32.0)
        assert outlier.ejected == {"e0"}

    def test_is_judged_by_rates_as_gRFC_A50_says_all_the_same(self) -> None:  # noqa: N802 - its name
        outlier = detector(replace(SHARE, consecutive=5), 6)
        for _ in range(5):
            outlier.record("e0", False, 1.0)
        for id_ in names(6)[1:4]:
            outlier.record(id_, False, 2.0)
        assert outlier.ejected == set()
        calls(outlier, {"e0": 0} | dict.fromkeys(names(6)[1:], 100))
        assert outlier.sweep(10.0)
        assert outlier.ejected == {"e0"}

    def test_is_one_of_which_most_that_get_calls_fail(self) -> None:
        outlier = detector(ROW, 10)
        outlier.reach = 4
        for _ in range(5):
            for id_ in ("e0", "e1", "e2"):
                outlier.record(id_, False, 1.0)
        assert outlier.ejected == set()

    def test_does_not_show_in_who_gets_no_calls_any_more(self) -> None:
        outlier = detector(ROW, 6)
        for id_ in ("e0", "e1"):
            outlier.record(id_, False, 1.0)
        outlier.retain(names(6)[2:])
        assert [outlier.record("e2", False, 2.0) for _ in range(5)] == [False] * 4 + [True]


class TestSuccessRate:
    def test_mean_90_deviation_20_makes_a_threshold_of_52(self) -> None:
        # Envoy, outlier_detection_impl.cc and its test: 50, 100, 100, 100, 100 with a factor of 1.9
        outlier = detector(RATE, 5)
        calls(outlier, {"e0": 50, "e1": 100, "e2": 100, "e3": 100, "e4": 100})
        assert outlier.sweep(10.0)
        assert outlier.ejected == {"e0"}

    def test_the_comparison_is_strict(self) -> None:
        # mean 75, deviation 25, and a factor of 1: exactly at the threshold of 50
        rule = SuccessRate(stdev=1.0, hosts=2)
        outlier = detector(replace(RATE, success_rate=rule), 2)
        calls(outlier, {"e0": 50, "e1": 100})
        assert not outlier.sweep(10.0)

    def test_grpc_go_ejects_the_third_of_three_that_fails(self) -> None:
        # grpc-go, TestEjectUnejectSuccessRate: factor 0.5, 3 hosts, volume 3; the ejection ends after the longest time
        rule = SuccessRate(stdev=0.5, hosts=3, volume=3)
        outlier = detector(replace(RATE, success_rate=rule, max_ejected=0.1), 3)
        calls(outlier, {"e0": 100, "e1": 100, "e2": 100}, volume=5)
        assert not outlier.sweep(10.0)
        calls(outlier, {"e0": 100, "e1": 100, "e2": 0}, volume=5)
        assert outlier.sweep(20.0)
        assert outlier.ejected == {"e2"}
        assert outlier.sweep(20.0 + 300.1)
        assert outlier.ejected == set()

    def test_fewer_than_five_with_enough_calls_are_not_compared(self) -> None:
        outlier = detector(RATE, 6)
        calls(outlier, {"e0": 0, "e1": 100, "e2": 100, "e3": 100})
        calls(outlier, {"e4": 100, "e5": 100}, volume=99)
        assert not outlier.sweep(10.0)

    def test_one_with_too_few_calls_is_not_judged(self) -> None:
        outlier = detector(RATE, 7)
        calls(outlier, dict.fromkeys(names(6), 100))
        calls(outlier, {"e6": 0}, volume=99)
        assert not outlier.sweep(10.0)

    @pytest.mark.parametrize("good", [0, 33, 100])
    def test_where_all_are_alike_nobody_is_an_outlier(self, good: int) -> None:
        outlier = detector(RATE, 7)
        calls(outlier, dict.fromkeys(names(7), good))
        assert not outlier.sweep(10.0)

    def test_an_interval_starts_with_no_calls(self) -> None:
        outlier = detector(RATE, 5)
        good = dict.fromkeys(names(5)[1:], 100)
        calls(outlier, {"e0": 50, **good}, volume=60)
        assert not outlier.sweep(10.0)
        calls(outlier, {"e0": 50, **good}, volume=60)
        assert not outlier.sweep(20.0)


class TestFailurePercentage:
    def test_more_than_85_per_cent_ejects_and_85_do_not(self) -> None:
        outlier = detector(SHARE, 5)
        calls(outlier, {"e0": 15, "e1": 14, "e2": 100, "e3": 100, "e4": 100})
        assert outlier.sweep(10.0)
        assert outlier.ejected == {"e1"}

    def test_the_worst_goes_first_where_there_is_room_for_one(self) -> None:
        outlier = detector(replace(SHARE, max_ejected=0.1), 6)
        calls(outlier, {"e0": 10, "e1": 5, "e2": 0, "e3": 100, "e4": 100, "e5": 100})
        outlier.sweep(10.0)
        assert outlier.ejected == {"e2"}

    def test_fewer_than_five_with_enough_calls_are_not_judged(self) -> None:
        outlier = detector(SHARE, 5)
        calls(outlier, dict.fromkeys(names(4), 0))
        calls(outlier, {"e4": 0}, volume=49)
        assert not outlier.sweep(10.0)


class TestTheCap:
    @pytest.mark.parametrize(
        ("count", "share", "most"),
        [(3, 0.0, 1), (4, 0.1, 1), (19, 0.1, 1), (20, 0.1, 2), (100, 0.29, 29), (8, 0.75, 6)],
    )
    def test_is_a_share_but_never_less_than_one(self, count: int, share: float, most: int) -> None:
        outlier = detector(replace(ROW, max_ejected=share), count)
        for id_ in names(count)[: most + 1]:
            for _ in range(9):
                outlier.record(id_, False, 1.0)
        assert len(outlier.ejected) == most

    def test_the_only_endpoint_is_an_outlier_of_nothing(self) -> None:
        outlier = detector(ROW, 1)
        assert not any(outlier.record("e0", False, 1.0) for _ in range(99))

    def test_when_the_service_shrinks_who_was_out_longest_comes_back(self) -> None:
        outlier = detector(ROW, 6)
        for now, id_ in enumerate(("e2", "e0", "e1")):
            for _ in range(5):
                outlier.record(id_, False, float(now))
        assert outlier.ejected == {"e0", "e1", "e2"}
        assert outlier.retain(["e0", "e1", "e2", "e3"])
        assert outlier.ejected == {"e0", "e1"}
        outlier.retain(names(6))
        assert not any(outlier.record("e2", False, 3.0) for _ in range(4)), "it has a clean slate"
        assert outlier.record("e2", False, 3.0)


class TestComingBack:
    def eject(self, outlier: OutlierDetector, now: float) -> None:
        for _ in range(5):
            outlier.record("e0", False, now)
        assert outlier.ejected == {"e0"}

    def out_for(self, outlier: OutlierDetector, now: float) -> float:
        """Ejects the first endpoint and sweeps ten times a second until it is back."""
        self.eject(outlier, now)
        for tenth in range(1, 4_000):
            if outlier.sweep(now + tenth / 10):
                return tenth / 10
        raise AssertionError("it never came back")

    def test_it_does_at_the_first_sweep_after_its_time(self) -> None:
        outlier = detector(ROW, 4)
        self.eject(outlier, 5.0)
        assert not outlier.sweep(35.0)
        assert outlier.sweep(35.1)
        assert outlier.ejected == set()

    def test_the_nth_time_lasts_n_times_as_long_up_to_the_limit(self) -> None:
        outlier = detector(replace(ROW, eject_limit=100.0), 4)
        lasted = [self.out_for(outlier, 1000.0 * time) for time in range(5)]
        assert lasted == pytest.approx([30.1, 60.1, 90.1, 100.1, 100.1])

    def test_a_limit_below_the_first_time_does_not_shorten_it(self) -> None:
        outlier = detector(replace(ROW, eject_limit=1.0), 4)
        assert self.out_for(outlier, 0.0) == pytest.approx(30.1)

    def test_each_healthy_interval_forgives_one_time(self) -> None:
        outlier = detector(ROW, 4)
        self.out_for(outlier, 0.0)
        self.out_for(outlier, 100.0)  # two times by now
        for now in (500.0, 510.0):
            outlier.sweep(now)
        assert self.out_for(outlier, 600.0) == pytest.approx(30.1)

    def test_a_late_sweep_forgives_the_intervals_that_had_none(self) -> None:
        outlier = detector(ROW, 4)
        for time in range(3):
            self.out_for(outlier, 1000.0 * time)
        outlier.sweep(2095.0)
        outlier.sweep(2095.0 + 10.0 + 2 * 10.0)
        assert self.out_for(outlier, 3000.0) == pytest.approx(30.1)

    def test_back_again_it_needs_a_whole_row_to_go(self) -> None:
        outlier = detector(ROW, 4)
        self.eject(outlier, 0.0)
        for _ in range(9):
            outlier.record("e0", False, 1.0)  # answers to what was under way
        assert outlier.sweep(31.0)
        assert not any(outlier.record("e0", False, 32.0) for _ in range(4))


class TestEndpointsThatGo:
    def test_they_are_no_longer_ejected(self) -> None:
        outlier = detector(ROW, 4)
        for _ in range(5):
            outlier.record("e0", False, 1.0)
        assert outlier.retain(["e1", "e2", "e3"])
        assert outlier.ejected == set()
        assert not outlier.retain(["e1", "e2"])

    def test_late_answers_do_not_bring_them_back(self) -> None:
        outlier = detector(ROW, 4)
        outlier.retain(["e1", "e2", "e3"])
        assert not any(outlier.record("e0", False, 1.0) for _ in range(99))

    def test_who_comes_back_is_new(self) -> None:
        outlier = detector(ROW, 4)
        for _ in range(4):
            outlier.record("e0", False, 1.0)
        outlier.retain(names(4)[1:])
        outlier.sweep(10.0)
        outlier.retain(names(4))
        assert not outlier.record("e0", False, 11.0)

    def test_nothing_is_held_against_who_comes_back(self) -> None:
        outlier = detector(ROW, 4)
        for now in (0.0, 100.0, 200.0):
            for _ in range(5):
                outlier.record("e0", False, now)
            outlier.sweep(now + 90.1)
        outlier.retain(names(4)[1:])
        outlier.sweep(291.0)
        outlier.retain(names(4))
        for _ in range(5):
            outlier.record("e0", False, 300.0)
        assert outlier.ejected == {"e0"}
        assert outlier.sweep(330.1), "the first time again"


def test_the_first_sweep_is_due_at_once_and_each_next_after_an_interval() -> None:
    outlier = OutlierDetector(ROW, names(3))
    assert outlier.due < 0.0
    assert not outlier.sweep(7.0)
    assert outlier.due == 17.0


class AnySequence(RuleBasedStateMachine):
    """Calls end, intervals pass, endpoints come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = Outlier(
            consecutive=3,
            success_rate=SuccessRate(stdev=1.0, hosts=2, volume=2),
            failure_percentage=FailurePercentage(threshold=0.5, hosts=2, volume=2),
            max_ejected=0.3,
        )
        self.endpoints = set(names(8))
        self.outlier = OutlierDetector(self.settings, set(self.endpoints))
        self.seen: frozenset[str] = frozenset()
        self.now = 0.0

    def noticed(self, changed: bool) -> None:
        assert changed == (self.outlier.ejected != self.seen)
        self.seen = self.outlier.ejected

    @rule(which=st.sampled_from(names(10)), oks=st.lists(st.booleans(), max_size=6))
    def calls_end(self, which: str, oks: list[bool]) -> None:
        for ok in oks:
            self.noticed(self.outlier.record(which, ok, self.now))

    @rule(seconds=st.floats(0.1, 100.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.outlier.due:
            self.noticed(self.outlier.sweep(self.now))

    @rule(which=st.sampled_from(names(10)))
    def one_comes_or_goes(self, which: str) -> None:
        self.endpoints ^= {which}
        self.noticed(self.outlier.retain(set(self.endpoints)))

    @invariant()
    def the_cap_holds(self) -> None:
        count = len(self.endpoints)
        assert len(self.outlier.ejected) <= max(int(0.3 * count + 1e-9), 1 if count > 1 else 0)

    @invariant()
    def only_who_is_there_is_ejected(self) -> None:
        assert self.outlier.ejected <= self.endpoints

    def teardown(self) -> None:
        """Whatever happened: after the longest time and one sweep everybody is back, even who failed to the last."""
        self.noticed(self.outlier.sweep(self.now))
        self.now += self.settings.eject_limit + 0.1
        self.noticed(self.outlier.sweep(self.now))
        assert self.outlier.ejected == set()


AnySequence.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAnySequence = AnySequence.TestCase
