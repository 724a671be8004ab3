"""Amounts with a unit, as people write them: durations, spans of time, shares and rates.

Each is written back in the form that people use, and read from it to the very same float: a document's canonical form
is stable however often it is read and written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from trimtab.policy.forms import Json, Misfit, shown

_NUMBER = r"[0-9]{1,15}(?:\.[0-9]+)?"
_DURATION = re.compile(rf"({_NUMBER})(ms|s|m|h)?")
_SHARE = re.compile(rf"({_NUMBER})\s*%")
_RATE = re.compile(rf"({_NUMBER})\s*/\s*({_NUMBER})?(ms|s|m|h)")
_UNITS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), None: Decimal(1)}

DURATIONS = "write 250ms, 3s, 1.5m or 2h"


def digits(number: float | Decimal) -> str:
    """The shortest decimal that stands for the same float, without an exponent."""
    exact = number if isinstance(number, Decimal) else Decimal(repr(number))
    return format(exact.normalize(), "f")


def duration_text(seconds: float) -> str:
    """Seconds as people write them: 1.5s, 250ms, 2m."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return digits(seconds / size) + unit
    if 0 < seconds < 1:
        return digits(Decimal(repr(seconds)) * 1000) + "ms"
    return digits(seconds) + "s"


def is_number(value: Json) -> bool:
    """Whether a document's value is a number; ``true`` is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds, written as 250ms, 3s, 1.5m or 2h; a bare number counts seconds."""

    low: float = 0.001
    high: float = 86_400.0

    def read(self, value: Json) -> float:
        """Raises Misfit for what is no duration or out of range."""
        if is_number(value):
            seconds = float(value)
        elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
            seconds = float(Decimal(match[1]) * _UNITS[match[2]])
        else:
            raise Misfit(f"{shown(value)} is no duration", DURATIONS)
        if not self.low <= seconds <= self.high:
            raise Misfit(f"{shown(value)} is out of range", f"{duration_text(self.low)} to {duration_text(self.high)}")
        return seconds

    def write(self, value: float) -> Json:
        """As people write it."""
        return duration_text(value)

    def schema(self) -> dict[str, Json]:
        """A string with a unit, or a number of seconds."""
        return {
            "anyOf": [
                {"type": "string", "pattern": rf"^\s*{_NUMBER}(ms|s|m|h)?\s*$"},
                {"type": "number", "minimum": self.low, "maximum": self.high},
            ]
        }


@dataclass(frozen=True, slots=True)
class Span:
    """Two durations, from the first to the last: ``50ms..1s``. A single one stands for both."""

    low: float = 0.001
    high: float = 3600.0

    def read(self, value: Json) -> tuple[float, float]:
        """Raises Misfit for what is no span, out of range, or backwards."""
        each = Duration(self.low, self.high)
        if not isinstance(value, str):
            seconds = each.read(value)
            return seconds, seconds
        first, dots, last = value.partition("..")
        start = each.read(first)
        end = each.read(last) if dots else start
        if end < start:
            raise Misfit(f"{shown(value)} goes backwards", f"write {last.strip()}..{first.strip()}")
        return start, end

    def write(self, value: tuple[float, float]) -> Json:
        """As people write it."""
        return f"{duration_text(value[0])}..{duration_text(value[1])}"

    def schema(self) -> dict[str, Json]:
        """A string of one or two durations, or a number of seconds."""
        one = rf"\s*{_NUMBER}(ms|s|m|h)?\s*"
        return {
            "anyOf": [
                {"type": "string", "pattern": rf"^{one}(\.\.{one})?$"},
                {"type": "number", "minimum": self.low, "maximum": self.high},
            ]
        }


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, written as 50% (or 0.5), as a float of 0 to 1."""

    low: float = 0.0
    high: float = 1.0

    def read(self, value: Json) -> float:
        """Raises Misfit for what is no share or out of range."""
        if isinstance(value, str) and (match := _SHARE.fullmatch(value.strip())):
            share = float(Decimal(match[1]) / 100)
        elif is_number(value):
            share = float(value)
        else:
            raise Misfit(f"{shown(value)} is no share", "write 20%, or 0.2")
        if not self.low <= share <= self.high:
            raise Misfit(f"{shown(value)} is out of range", f"{self.write(self.low)} to {self.write(self.high)}")
        return share

    def write(self, value: float) -> Json:
        """As a percentage."""
        return digits(Decimal(repr(value)) * 100) + "%"

    def schema(self) -> dict[str, Json]:
        """A percentage, or a number of 0 to 1."""
        return {
            "anyOf": [
                {"type": "string", "pattern": rf"^\s*{_NUMBER}\s*%\s*$"},
                {"type": "number", "minimum": self.low, "maximum": self.high},
            ]
        }


@dataclass(frozen=True, slots=True)
class Rate:
    """Events a second, written as 50/s, 600/m or 5/10s; a bare number counts those of a second."""

    low: float = 1 / 86_400
    high: float = 1e6

    def read(self, value: Json) -> float:
        """Raises Misfit for what is no rate or out of range."""
        if isinstance(value, str) and (match := _RATE.fullmatch(value.strip())):
            period = Decimal(match[2] or 1) * _UNITS[match[3]]
            rate = float(Decimal(match[1]) / period) if period else 0.0
        elif is_number(value):
            rate = float(value)
        else:
            raise Misfit(f"{shown(value)} is no rate", "write 50/s, 600/m or 5/10s")
        if not self.low <= rate <= self.high:
            raise Misfit(f"{shown(value)} is out of range", "1/24h to 1000000/s")
        return rate

    def write(self, value: float) -> Json:
        """As people write it: by the second, minute or hour, whichever makes a whole number."""
        for unit, size in (("s", 1), ("m", 60), ("h", 3600)):
            text = f"{round(value * size)}/{unit}"
            if round(value * size) and self.read(text) == value:
                return text
        return f"{digits(value)}/s"

    def schema(self) -> dict[str, Json]:
        """A string as 50/s, or a number for each second."""
        return {
            "anyOf": [
                {"type": "string", "pattern": rf"^\s*{_NUMBER}\s*/\s*({_NUMBER})?(ms|s|m|h)\s*$"},
                {"type": "number", "minimum": self.low, "maximum": self.high},
            ]
        }
