"""The tables of docs/policies.md, as the forms tell them. ``python -m tests.unit.policy.guide`` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimtab.policy.canonical import brief
from trimtab.policy.forms import REQUIRED, Anything, Choice, Count, Form, ListOf, MapOf, Nested, Number, Text, fields_of
from trimtab.policy.model import Match
from trimtab.policy.quantities import Duration, Rate, Share, Span
from trimtab.policy.sections import SECTIONS
from trimtab.policy.words import Condition

GUIDE = Path(__file__).parents[3] / "docs/policies.md"
BEGIN, END = "<!-- fields: begin -->\n", "<!-- fields: end -->\n"


def takes(form: Form) -> str:
    """What may be written, in a word or two."""
    match form:
        case Nested():
            others = [takes(fields_of(form.of)[form.scalar].form) + f" (its `{form.scalar}`)"] if form.scalar else []
            others += ["a sentence"] if form.sentence else []
            return ", or ".join(["fields", *others])
        case ListOf():
            return f"one or more: {takes(form.each)}"
        case MapOf():
            return f"{takes(form.key)} to {takes(form.each)}"
        case Choice():
            return ", ".join(f"`{word}`" for word in form.words)
        case Count() | Number():
            return f"{form.low:,} to {form.high:,}"
    words: dict[type[Any], str] = {
        Duration: "duration", Span: "span", Share: "share", Rate: "rate", Condition: "condition", Text: "text",
        Anything: "JSON value",
    }  # fmt: skip
    return words[type(form)]


def _default(form: Form, default: Any) -> str:
    if default is REQUIRED:
        return "required"
    if default is None or default == ():
        return "–"
    if isinstance(form, Nested):
        return f"`{default}`"
    written = form.write(default)
    return "`" + (", ".join(map(str, written)) if isinstance(written, list) else str(written)) + "`"


def _rows(of: type[Any], before: str = "") -> Iterator[str]:
    sections = {form.of: name for name, form in SECTIONS.items() if isinstance(form, Nested)}
    for name, field in fields_of(of).items():
        held_of = field.form.of if isinstance(field.form, Nested) else None
        doc = (
            f"{field.doc} Its fields: [{sections[held_of]}](#{sections[held_of]})."
            if held_of in sections
            else field.doc
        )
        yield f"| `{before}{name}` | {takes(field.form)} | {_default(field.form, field.default)} | {doc} |"
        if held_of is not None and held_of not in sections:
            yield from _rows(held_of, f"{before}{name}.")


def _table(of: type[Any]) -> list[str]:
    return ["| field | takes | default | |", "|---|---|---|---|", *_rows(of), ""]


def _says(of: type[Any]) -> str:
    return " ".join((of.__doc__ or "").replace("``", "`").split())


def tables() -> str:
    """All sections with all their fields, and the match of a route."""
    lines: list[str] = ["### match", _says(Match), "", *_table(Match)]
    for name, form in SECTIONS.items():
        lines.append(f"### {name}")
        if isinstance(form, Nested):
            alone = f" A value alone is its `{form.scalar}`." if form.scalar else ""
            lines += [_says(form.of) + alone, "", *_table(form.of)]
        else:
            lines += [
                f"How important a call is: {takes(form)}. Built in: `{brief(name, 'normal')}`. It cannot be off.",
                "",
            ]
    return "\n".join(lines)


def held() -> str:
    """What the guide holds where the tables belong."""
    found = re.search(f"{BEGIN}(.*){END}", GUIDE.read_text(), re.DOTALL)
    assert found, f"{GUIDE} has no place for the tables"
    return found[1]


if __name__ == "__main__":
    GUIDE.write_text(GUIDE.read_text().replace(BEGIN + held() + END, BEGIN + tables() + END))
