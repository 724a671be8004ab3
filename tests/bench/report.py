"""What a benchmark says, and the table in which it is printed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure beside its reference. ``ratio`` is measured to reference; ``holds`` is None where nothing was promised."""

    what: str
    measured: str
    reference: str = ""
    ratio: float | None = None
    target: str = ""
    holds: bool | None = None


def percentile(samples: Iterable[float], share: float) -> float:
    """Nearest-rank percentile of every sample; NaN of none."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def ms(seconds: float) -> str:
    """Seconds as milliseconds, to three digits."""
    value = seconds * 1e3
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def spread(samples: Sequence[float]) -> str:
    """``p50 / p99 / max`` in milliseconds."""
    return f"{ms(percentile(samples, 0.5))} / {ms(percentile(samples, 0.99))} / {ms(max(samples, default=math.nan))}"


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table."""
    head = ("what", "measured", "reference in the same run", "ratio", "target", "holds")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}" if row.ratio >= 0.1 else f"{row.ratio:.4f}"
    holds = {None: "", True: "yes", False: "NO"}[row.holds]
    return (row.what, row.measured, row.reference, ratio, row.target, holds)
