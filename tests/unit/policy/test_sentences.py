"""When a circuit opens, as a sentence."""

from __future__ import annotations

import pytest
from trimtab.policy.forms import Misfit
from trimtab.policy.sentences import OpenWhen, read_open_when


@pytest.mark.parametrize(
    ("sentence", "meaning"),
    [
        ("failures >= 50% of 20 in 10s", OpenWhen(failures=0.5, minimum=20, seconds=10.0)),
        ("failures >= 12.5% of 5 in last 100", OpenWhen(failures=0.125, minimum=5, calls=100)),
        ("slow(1s) >= 80% of 20 in 1m", OpenWhen(slow=0.8, slow_after=1.0, minimum=20, seconds=60.0)),
        ("5 in a row", OpenWhen(consecutive=5)),
        (
            "failures >= 50% of 20 in 10s or slow(250ms) >= 80% of 20 in 10s or 5 in a row",
            OpenWhen(failures=0.5, slow=0.8, slow_after=0.25, consecutive=5, minimum=20, seconds=10.0),
        ),
    ],
)
def test_a_sentence_and_its_structure_say_the_same(sentence: str, meaning: OpenWhen) -> None:
    assert read_open_when(sentence) == meaning
    assert str(meaning) == sentence


@pytest.mark.parametrize(
    ("loose", "strict"),
    [
        ("  5 failures  in a row ", "5 in a row"),
        ("failures>=50 % in 10s", "failures >= 50% of 20 in 10s"),
        ("failures >= 50% in last 10", "failures >= 50% of 10 in last 10"),
        ("slow ( 1s ) >= 80% in last 100", "slow(1s) >= 80% of 20 in last 100"),
    ],
)
def test_spaces_and_what_is_understood_may_be_left_out(loose: str, strict: str) -> None:
    assert str(read_open_when(loose)) == strict


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "or",
        "often",
        "failures > 50% of 20 in 10s",
        "failures >= 50 of 20 in 10s",
        "failures >= 500% of 20 in 10s",
        "failures >= 0% of 20 in 10s",
        "failures >= 1.2.3% of 20 in 10s",
        "failures >= 50% of 20 in 2h",
        "failures >= 50% of 0 in 10s",
        "slow >= 50% of 20 in 10s",
        "slow(soon) >= 50% of 20 in 10s",
        "0 in a row",
        "5 in a row or 6 in a row",
        "failures >= 50% of 20 in 10s or failures >= 60% of 20 in 10s",
        "failures >= 50% of 20 in 10s or slow(1s) >= 80% of 20 in last 100",
        "5 in a row or " * 50,
    ],
)
def test_what_is_not_understood_is_refused_with_a_hint(sentence: str) -> None:
    with pytest.raises(Misfit) as refused:
        read_open_when(sentence)
    assert refused.value.hint
