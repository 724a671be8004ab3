"""Durations, spans, shares and rates: what people write, and what they get back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.policy.forms import Misfit
from trimtab.policy.quantities import Duration, Rate, Share, Span

EXACTLY = settings(max_examples=100, deadline=None)


@pytest.mark.parametrize(
    ("form", "written", "value"),
    [
        (Duration(), "250ms", 0.25),
        (Duration(), "9ms", 0.009),
        (Duration(), "1.1m", 66.0),
        (Duration(), "2h", 7200.0),
        (Duration(), "5", 5.0),
        (Duration(), 0.5, 0.5),
        (Span(), "50ms..1s", (0.05, 1.0)),
        (Span(), "50ms .. 1s", (0.05, 1.0)),
        (Span(), "1s", (1.0, 1.0)),
        (Span(), 2, (2.0, 2.0)),
        (Share(), "20%", 0.2),
        (Share(), "0.1 %", 0.001),
        (Share(), 1, 1.0),
        (Rate(), "50/s", 50.0),
        (Rate(), "600/m", 10.0),
        (Rate(), "5 / 10s", 0.5),
        (Rate(), 12.5, 12.5),
    ],
)
def test_a_quantity_is_read_as_it_is_meant(form: Any, written: Any, value: Any) -> None:
    assert form.read(written) == value


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (Duration(), 90.0, "90s"),
        (Duration(), 120.0, "2m"),
        (Duration(), 86_400.0, "24h"),
        (Duration(0.0), 0.0, "0s"),
        (Duration(), 0.0015, "1.5ms"),
        (Span(), (0.025, 1.0), "25ms..1s"),
        (Share(), 0.07, "7%"),
        (Rate(), 100 / 60, "100/m"),
        (Rate(), 1 / 7, "0.14285714285714285/s"),
    ],
)
def test_a_quantity_is_written_as_people_do(form: Any, value: Any, text: str) -> None:
    assert form.write(value) == text


@pytest.mark.parametrize(
    ("form", "written"),
    [
        (Duration(), "1d"),
        (Duration(), "0ms"),
        (Duration(), "25h"),
        (Duration(), "-1s"),
        (Duration(), "٣s"),
        (Duration(), True),
        (Duration(), None),
        (Duration(), ["1s"]),
        (Duration(), 10**17),
        (Duration(), "9" * 400),
        (Span(), "1s..50ms"),
        (Span(), "1s..2s..3s"),
        (Span(), ".."),
        (Share(), "101%"),
        (Share(), 20),
        (Share(0.01), "0%"),
        (Share(), False),
        (Rate(), "0/s"),
        (Rate(), "5/0s"),
        (Rate(), "5/d"),
        (Rate(), 10**17),
        (Rate(), True),
    ],
)
def test_what_is_no_such_quantity_is_refused_with_a_hint(form: Any, written: Any) -> None:
    with pytest.raises(Misfit) as refused:
        form.read(written)
    assert refused.value.hint


@EXACTLY
@given(st.floats(0.0, 86_400.0))
def test_every_duration_reads_back_exactly(seconds: float) -> None:
    assert Duration(0.0).read(Duration(0.0).write(seconds)) == seconds


@EXACTLY
@given(st.floats(0.0, 1.0))
def test_every_share_reads_back_exactly(share: float) -> None:
    assert Share().read(Share().write(share)) == share


@EXACTLY
@given(st.floats(1 / 86_400, 1e6) | st.integers(1, 10_000).map(lambda calls: calls / 3600))
def test_every_rate_reads_back_exactly(rate: float) -> None:
    assert Rate().read(Rate().write(rate)) == rate
