"""What HTTP says, in the terms of the call path."""

from __future__ import annotations

import pytest
from trimtab.http.meaning import judge


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("3", 3.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("999999999", 999_999_999.0),
        # What is no number of seconds asks for nothing, whoever sends it.
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("9" * 400, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_a_callee_says_when_to_come_back_in_whole_seconds(told: str, seconds: float | None) -> None:
    assert judge(503, {"retry-after": told}).pushback == seconds
