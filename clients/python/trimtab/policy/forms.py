"""What a field of a policy may hold, told once: reading, canonical JSON, the JSON Schema and the guide follow from it.

A leaf turns a document's scalar (or, for Anything, any value) into a setting (``read``) and back (``write``). Lists, maps
and nested sections are walked by the reader, which knows the place of each of their parts; they only ``write``. All
describe themselves (``schema``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

Json = Any  # what json.loads returns

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class Misfit(ValueError):
    """A value that its field does not take. ``hint`` is the way out."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Leaf(Protocol):
    """What one field may hold that has no parts with places of their own."""

    def read(self, value: Json) -> Any:
        """The setting that a document's ``value`` stands for. Raises Misfit."""
        ...

    def write(self, value: Any) -> Json:
        """The canonical JSON of a setting, which ``read`` reads as the same."""
        ...

    def schema(self) -> dict[str, Json]:
        """JSON Schema of what ``read`` takes; it may take a little more than ``read``, never less."""
        ...


class Field(NamedTuple):
    """One field of a section: what it holds, what it is for, and whether ``null`` may say that there is none."""

    form: Form
    doc: str
    optional: bool
    default: Any  # REQUIRED when it must be said


REQUIRED = object()


def form(of: Form, default: Any, doc: str, *, optional: bool | None = None) -> Any:
    """A dataclass field that holds ``of``; ``doc`` tells people what it is for.

    It is ``optional`` when its default is None, or when told so.
    """
    may_be_none = default is None if optional is None else optional
    return field(default=default, metadata={"field": Field(of, doc, may_be_none, default)})


def required(of: Form, doc: str) -> Any:
    """A dataclass field that holds ``of`` and must be said."""
    return field(metadata={"field": Field(of, doc, False, REQUIRED)})


def fields_of(section: type[Any]) -> dict[str, Field]:
    """A section's fields by name, in the order of the class."""
    return {name: at.metadata["field"] for name, at in section.__dataclass_fields__.items() if at.metadata}


def shown(value: Json) -> str:
    """A document's value as a person would know it again, shortened."""
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a mapping"
    text = json.dumps(value[:64] if isinstance(value, str) else value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def did_you_mean(word: Json, known: Iterable[str]) -> str:
    """``did you mean …?`` when a known word is close, else the list of all."""
    from difflib import get_close_matches

    words = list(known)
    close = get_close_matches(str(word)[:64], words, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else "one of " + ", ".join(words)


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number."""

    low: int = 1
    high: int = 1_000_000

    def read(self, value: Json) -> int:
        """Raises Misfit for what is no whole number or out of range."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise Misfit(f"{shown(value)} is no whole number", f"{self.low} to {self.high}")
        if not self.low <= value <= self.high:
            raise Misfit(f"{value} is out of range", f"{self.low} to {self.high}")
        return value

    def write(self, value: int) -> Json:
        """Itself."""
        return value

    def schema(self) -> dict[str, Json]:
        """An integer."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Number:
    """A number that has no unit."""

    low: float
    high: float

    def read(self, value: Json) -> float:
        """Raises Misfit for what is no number or out of range."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Misfit(f"{shown(value)} is no number", f"{self.low:g} to {self.high:g}")
        if not self.low <= value <= self.high:
            raise Misfit(f"{shown(value)} is out of range", f"{self.low:g} to {self.high:g}")
        return float(value)

    def write(self, value: float) -> Json:
        """Itself, a whole one without a fraction."""
        return int(value) if value.is_integer() else value

    def schema(self) -> dict[str, Json]:
        """A number."""
        return {"type": "number", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words. ``aliases`` are other spellings of some."""

    words: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def read(self, value: Json) -> str:
        """Raises Misfit, guessing which was meant."""
        if isinstance(value, str):
            word = self.aliases.get(value, value)
            if word in self.words:
                return word
        raise Misfit(f"{shown(value)} is none of {', '.join(self.words)}", did_you_mean(value, self.words))

    def write(self, value: str) -> Json:
        """Itself."""
        return value

    def schema(self) -> dict[str, Json]:
        """An enumeration."""
        return {"enum": [*self.words, *self.aliases]}


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a bounded length; ``pattern`` must fit the whole of it, ``says`` tells people what that means.

    ``tidy`` brings spellings of the same into one form.
    """

    high: int = 256
    pattern: str = ""
    says: str = ""
    tidy: Callable[[str], str] = str

    def read(self, value: Json) -> str:
        """Raises Misfit; a whole number stands for its digits (503 is written without quotes)."""
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise Misfit(f"{shown(value)} is no text", self.says if isinstance(value, (list, dict)) else "quote it")
        if not 1 <= len(value) <= self.high:
            raise Misfit(f"a text of {len(value)} characters", f"1 to {self.high}")
        if _CONTROL.search(value) or (self.pattern and not re.fullmatch(self.pattern, value)):
            raise Misfit(f"{shown(value)} does not fit here", self.says or "a text without control characters")
        return self.tidy(value)

    def write(self, value: str) -> Json:
        """Itself."""
        return value

    def schema(self) -> dict[str, Json]:
        """A string, or a whole number."""
        found: dict[str, Json] = {"type": ["string", "integer"], "minLength": 1, "maxLength": self.high}
        return {**found, "pattern": f"^(?:{self.pattern})$"} if self.pattern else found


@dataclass(frozen=True, slots=True)
class Anything:
    """Any JSON value up to a size in bytes, kept as its canonical text, so that settings stay hashable."""

    high: int = 16_384

    def read(self, value: Json) -> str:
        """Raises Misfit when it is too large."""
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        if len(text.encode()) > self.high:
            raise Misfit(f"{len(text.encode())} bytes are too many", f"at most {self.high}")
        return text

    def write(self, value: str) -> Json:
        """What was given."""
        return json.loads(value)

    def schema(self) -> dict[str, Json]:
        """Anything."""
        return {}


@dataclass(frozen=True, slots=True)
class ListOf:
    """Several of one leaf, each once, as a tuple; a single one may stand alone."""

    each: Leaf
    low: int = 1
    high: int = 64

    def write(self, value: tuple[Any, ...]) -> Json:
        """A list."""
        return [self.each.write(one) for one in value]

    def schema(self) -> dict[str, Json]:
        """One, or an array."""
        one = self.each.schema()
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": self.low, "maxItems": self.high}]}


@dataclass(frozen=True, slots=True)
class MapOf:
    """Texts to values of one leaf, as a tuple of pairs sorted by key, so that settings stay hashable."""

    key: Leaf
    each: Leaf
    low: int = 1
    high: int = 64

    def write(self, value: tuple[tuple[str, Any], ...]) -> Json:
        """A mapping."""
        return {key: self.each.write(one) for key, one in value}

    def schema(self) -> dict[str, Json]:
        """An object."""
        return {
            "type": "object",
            "additionalProperties": self.each.schema(),
            "minProperties": self.low,
            "maxProperties": self.high,
        }


class Contradiction(NamedTuple):
    """Fields of one section that do not go together. ``field`` is where to look first."""

    field: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Nested:
    """A mapping of the fields of the dataclass ``of``. A value that is no mapping may stand for the field ``scalar``.

    ``sentence`` reads a text that stands for the whole, which ``str()`` of it writes, as a breaker's ``open_when``.
    A section tells what does not go together in it with a method ``contradictions() -> Iterator[Contradiction]``.
    """

    of: type[Any]
    scalar: str = ""
    sentence: Callable[[str], Any] | None = None

    def write(self, value: Any) -> dict[str, Json]:
        """Every field, also those left at their defaults: what is stored does not change its meaning with a new default."""
        told = ((name, at.form, getattr(value, name)) for name, at in fields_of(self.of).items())
        return {name: None if one is None else of.write(one) for name, of, one in told}

    def schema(self) -> dict[str, Json]:
        """An object; a scalar or a sentence where one may stand for it."""
        fields = fields_of(self.of)
        whole: dict[str, Json] = {
            "type": "object",
            "description": " ".join((self.of.__doc__ or "").replace("``", "").split()),
            "properties": {name: _field_schema(at) for name, at in fields.items()},
            "additionalProperties": False,
        }
        if must := [name for name, at in fields.items() if at.default is REQUIRED]:
            whole["required"] = must
        short = [fields[self.scalar].form.schema()] if self.scalar else []
        if self.sentence:
            short.append({"type": "string"})
        return {"anyOf": [whole, *short]} if short else whole


Form = Leaf | ListOf | MapOf | Nested


def _field_schema(at: Field) -> dict[str, Json]:
    held = at.form.schema()
    found = {"anyOf": [held, {"type": "null"}]} if at.optional and held else held
    if at.default is not REQUIRED and at.default != ():
        found = {**found, "default": None if at.default is None else at.form.write(at.default)}
    return {**found, "description": at.doc}
