"""Answers kept for bad times, and bad times made on purpose."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.calling.fallbacks import Fallbacks, Substitute
from trimtab.core.fallback import LastGood
from trimtab.core.faults import Faults
from trimtab.core.retrying.conditions import Outcome
from trimtab.policy.sections import Abort, Cache, Delay, Fallback, Fault


class TestLastGood:
    def test_an_answer_is_found_with_its_age(self) -> None:
        cache: LastGood[str] = LastGood(Cache())
        cache.keep("a", "old", 3, 1.0)
        cache.keep("a", "new", 3, 2.0)
        assert cache.find("a", 5.0) == ("new", 3.0)
        assert cache.find("b", 5.0) is None

    def test_what_is_too_old_is_of_no_use_and_takes_no_place(self) -> None:
        cache: LastGood[str] = LastGood(Cache(max_age=10.0))
        cache.keep("a", "x", 1, 0.0)
        assert cache.find("a", 10.0) == ("x", 10.0)
        assert cache.find("a", 10.1) is None
        assert len(cache) == 0

    def test_the_least_recently_used_goes_first(self) -> None:
        cache: LastGood[str] = LastGood(Cache(entries=2))
        cache.keep("a", "A", 1, 0.0)
        cache.keep("b", "B", 1, 0.0)
        cache.find("a", 0.0)
        cache.keep("c", "C", 1, 0.0)
        assert [cache.find(key, 0.0) is not None for key in "abc"] == [True, False, True]

    def test_what_is_too_large_is_not_kept_and_replaces_nothing(self) -> None:
        cache: LastGood[str] = LastGood(Cache(size=10))
        cache.keep("a", "small", 10, 0.0)
        cache.keep("a", "large", 11, 1.0)
        assert cache.find("a", 1.0) == ("small", 1.0)

    def test_none_is_an_answer_like_any_other(self) -> None:
        cache: LastGood[None] = LastGood(Cache())
        cache.keep("a", None, 0, 0.0)
        assert cache.find("a", 0.0) == (None, 0.0)

    @settings(max_examples=60, deadline=None)
    @given(events=st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 12)), max_size=80))
    def test_it_answers_as_a_plain_list_of_uses_would(self, events: list[tuple[bool, int, int]]) -> None:
        cache: LastGood[int] = LastGood(Cache(entries=3, size=8, max_age=20.0))
        kept: OrderedDict[int, float] = OrderedDict()
        for now, (keeping, key, size) in enumerate(events):
            if keeping:
                cache.keep(key, key, size, float(now))
                if size <= 8:
                    kept.pop(key, None)
                    kept[key] = float(now)
                    while len(kept) > 3:
                        del kept[next(iter(kept))]
            else:
                at = kept.pop(key, None)
                expected = None if at is None or now - at > 20.0 else (key, now - at)
                if at is not None and expected is not None:
                    kept[key] = at
                assert cache.find(key, float(now)) == expected
            assert len(cache) == len(kept)


class TestFaults:
    def test_nothing_happens_that_is_not_asked_for(self) -> None:
        faults = Faults(Fault(), random.Random(1))
        assert faults.delay() == 0.0
        assert faults.abort() is None

    def test_all_of_them_is_all_of_them_and_none_is_none(self) -> None:
        always = Faults(Fault(delay=Delay(time=0.2), abort=Abort()), random.Random(1))
        never = Faults(Fault(delay=Delay(share=0.0), abort=Abort(share=0.0)), random.Random(1))
        assert {always.delay() for _ in range(200)} == {0.2}
        assert {always.abort() for _ in range(200)} == {Outcome("503")}
        assert {never.delay() for _ in range(200)} == {0.0}
        assert {never.abort() for _ in range(200)} == {None}

    def test_a_share_is_met_in_the_long_run(self) -> None:
        faults = Faults(Fault(delay=Delay(time=0.2, share=0.25), abort=Abort(share=0.1)), random.Random(1))
        assert sum(faults.delay() > 0 for _ in range(10_000)) == pytest.approx(2_500, abs=200)
        assert sum(faults.abort() is not None for _ in range(10_000)) == pytest.approx(1_000, abs=150)

    @pytest.mark.parametrize(
        ("status", "outcome"),
        [
            ("UNAVAILABLE", Outcome("UNAVAILABLE")),
            ("connect-failure", Outcome("connect-failure", sent=False)),
            ("404", Outcome("404", failed=False)),
        ],
    )
    def test_an_injected_failure_counts_as_a_true_one_would(self, status: str, outcome: Outcome) -> None:
        assert Faults(Fault(abort=Abort(status=status)), random.Random(1)).abort() == outcome


def test_an_answer_that_another_thread_forgets_meanwhile_harms_nobody() -> None:
    fallbacks = Fallbacks(Fallback(cache=Cache(entries=2)), threading.RLock())
    other = threading.Thread(target=fallbacks.keep, args=("newest", "x", 1, 1.0))

    class Key:
        """Its answer is forgotten between two looks at it: after it was found, and before it is moved to the end."""

        looks = 0

        def __hash__(self) -> int:
            self.looks += 1
            if self.looks == 3:
                other.start()
                other.join(0.2)
            return 1

    key = Key()
    fallbacks.keep(key, "old", 1, 0.0)
    fallbacks.keep("newer", "x", 1, 0.0)
    assert fallbacks.instead("failure", key, 1.0) == Substitute("cache", "old", 1.0)
    other.join(10)
    assert key.looks >= 3 and not other.is_alive()
