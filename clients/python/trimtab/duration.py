"""Durations as people write them."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def parse_duration(text: str | float) -> float:
    """Seconds of "250ms", "5s", "1.5m", "2h"; a bare number counts seconds. Raises ValueError for anything else."""
    if isinstance(text, str):
        match = _DURATION.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no duration: write 250ms, 5s, 1.5m or 2h")
        return float(match[1]) * _SECONDS[match[2]]
    if not 0 <= text < float("inf"):
        raise ValueError(f"{text!r} is no duration: it must be 0 or more seconds")
    return float(text)
