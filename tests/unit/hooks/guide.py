"""The metrics of docs/sdk.md, as the collector describes them. ``python -m tests.unit.hooks.guide`` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

from trimtab.prometheus import METRICS

GUIDE = Path(__file__).parents[3] / "docs/sdk.md"
BEGIN, END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->\n"


def table() -> str:
    """All metrics with their labels."""
    rows = [
        f"| `{metric.name}` | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.documentation} |"
        for metric in METRICS
    ]
    return "\n".join(["| metric | labels | |", "|---|---|---|", *rows, ""])


def held() -> str:
    """What the guide holds where the table belongs."""
    found = re.search(f"{BEGIN}(.*){END}", GUIDE.read_text(), re.DOTALL)
    assert found, f"{GUIDE} has no place for the metrics"
    return found[1]


def example() -> str:
    """The program of the section on seeing what happens."""
    section = GUIDE.read_text().partition("## Seeing what happens\n")[2]
    found = re.match(r"```python\n(.*?)```", section, re.DOTALL)
    assert found, f"{GUIDE} shows no program"
    return found[1]


if __name__ == "__main__":
    GUIDE.write_text(GUIDE.read_text().replace(BEGIN + held() + END, BEGIN + table() + END))
