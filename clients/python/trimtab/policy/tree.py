"""Texts as trees of values that know their place. JSON and YAML come to the same tree; nothing is built from it here.

YAML is taken as version 1.2 sees it: ``on``, ``off``, ``yes`` and ``no`` are texts, ``010`` and ``1:30`` are no numbers,
keys are always texts. Anchors, aliases and tags are refused: a policy is data that can be read from top to bottom. The
tree is built from the parser's events with a stack of its own, so that no text can exhaust Python's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from trimtab.policy.forms import Json
from trimtab.policy.problems import PolicyInvalid, Problem

MAX_DEPTH = 32
MAX_DIGITS = 18

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_FRACTION = re.compile(r"-?(?:[0-9]{1,18}\.[0-9]{0,30}|\.[0-9]{1,30}|[0-9]{1,18}(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?")
_WORDS: dict[str, Json] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UNWRITABLE = re.compile("[\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")

_JSON_SPACE = re.compile(r"[ \t\n\r]*")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_JSON_WORDS: dict[str, Json] = {"null": None, "true": True, "false": False}

_FLATTER = "say it with fewer levels"
_REMOVE = "remove it"
_QUOTE = "quote a text that YAML may take for something else"
_ANY_JSON = "one of {…}, […], a text in double quotes, a number, true, false and null"
_JSON_KEY = 'as "timeout": "3s"; after the last entry comes no comma'
_JSON_NEXT = "close what is open; JSON has a comma between entries, and no comments"
_JSON_TEXT = "a text stands in one line, in double quotes, with \\ before each quote and backslash in it"


class Node(NamedTuple):
    """A value and where it begins, counted from 1. A mapping is its entries in their order, doubles included."""

    value: bool | int | float | str | list[Node] | Entries | None
    line: int
    column: int


class Entry(NamedTuple):
    """A key of a mapping, where it stands, and what it holds."""

    key: str
    line: int
    column: int
    node: Node


class Entries(tuple[Entry, ...]):
    """A mapping's entries."""

    __slots__ = ()


def unreadable(message: str, line: int, column: int, hint: str = "") -> PolicyInvalid:
    """A text in which nothing after this place can be understood."""
    return PolicyInvalid([Problem("", line, column, message, hint)])


def checked(text: str | bytes) -> str:
    """The text itself, without a byte-order mark. Raises PolicyInvalid for what is no UTF-8 text."""
    whole = text if isinstance(text, str) else _decoded(text)
    whole = whole.removeprefix("\ufeff")
    if found := _UNPRINTABLE.search(whole):
        raise unreadable(f"a character that is no text, U+{ord(found[0]):04X}", *_place(whole, found.start()), _REMOVE)
    return whole


def too_large(text: bytes, limit: int) -> Problem | None:
    """What is wrong with a text of more than ``limit`` bytes, at the first character that is beyond; None: nothing."""
    if len(text) <= limit:
        return None
    kept = text[:limit].decode(errors="ignore").removeprefix("\ufeff")
    return Problem("", *_place(kept, len(kept)), f"{len(text)} bytes are too many", f"at most {limit}, which end here")


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise unreadable(
            "not UTF-8", line, error.start - text.rfind(b"\n", 0, error.start), "save it as UTF-8"
        ) from None


def plain(text: str) -> Json:
    """What an unquoted YAML scalar means: None, a bool, a number, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FRACTION.fullmatch(text) else text


def from_json(text: str) -> Node:
    """The tree of a JSON document. Raises PolicyInvalid at the first place that is none."""
    reader = _Json(text)
    node, at = reader.value(reader.skip(0), 1)
    at = reader.skip(at)
    if at < len(text):
        raise reader.fault(at, "the document ended before this", "one document only")
    return node


def _place(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


class _Json:
    """JSON as RFC 8259 has it. The standard library's reader knows no places but that of its first error."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._line = 1
        self._begin = 0  # where the line begins
        self._counted = 0  # up to here lines are counted

    def fault(self, at: int, message: str, hint: str = "") -> PolicyInvalid:
        """What to raise for the place ``at``."""
        return unreadable(message, *_place(self._text, at), hint)

    def skip(self, at: int) -> int:
        """Where the next token begins."""
        match = _JSON_SPACE.match(self._text, at)
        return match.end() if match else at

    def value(self, at: int, depth: int) -> tuple[Node, int]:
        """The value that begins at ``at``, and where it ends."""
        line, column = self._place(at)
        first = self._text[at : at + 1]
        found: Any
        if depth > MAX_DEPTH:
            raise self.fault(at, f"nested more than {MAX_DEPTH} deep", _FLATTER)
        if first == "{":
            found, at = self._entries(at, depth)
        elif first == "[":
            found, at = self._list(at, depth)
        elif first == '"':
            found, at = self._text_at(at)
        elif match := _JSON_NUMBER.match(self._text, at):
            found, at = self._number(match), match.end()
        else:
            for word, meaning in _JSON_WORDS.items():
                if self._text.startswith(word, at):
                    return Node(meaning, line, column), at + len(word)
            raise self.fault(at, f"a value was expected, not {self._seen(at)}", _ANY_JSON)
        return Node(found, line, column), at

    def _place(self, at: int) -> tuple[int, int]:
        """As the function, from where it was asked last: values come in the order of the text."""
        if lines := self._text.count("\n", self._counted, at):
            self._line += lines
            self._begin = self._text.rfind("\n", self._counted, at) + 1
        self._counted = at
        return self._line, at - self._begin + 1

    def _entries(self, at: int, depth: int) -> tuple[Entries, int]:
        found: list[Entry] = []
        at = self.skip(at + 1)
        if self._text.startswith("}", at):
            return Entries(), at + 1
        while True:
            line, column = self._place(at)
            if not self._text.startswith('"', at):
                raise self.fault(at, f"a key in double quotes was expected, not {self._seen(at)}", _JSON_KEY)
            key, at = self._text_at(at)
            at = self.skip(at)
            if not self._text.startswith(":", at):
                raise self.fault(at, f"':' was expected, not {self._seen(at)}", _JSON_KEY)
            node, at = self.value(self.skip(at + 1), depth + 1)
            found.append(Entry(key, line, column, node))
            at, ended = self._next(at, "}")
            if ended:
                return Entries(found), at

    def _list(self, at: int, depth: int) -> tuple[list[Node], int]:
        found: list[Node] = []
        at = self.skip(at + 1)
        if self._text.startswith("]", at):
            return found, at + 1
        while True:
            node, at = self.value(at, depth + 1)
            found.append(node)
            at, ended = self._next(at, "]")
            if ended:
                return found, at

    def _next(self, at: int, end: str) -> tuple[int, bool]:
        at = self.skip(at)
        seen = self._text[at : at + 1]
        if seen not in (",", end):
            raise self.fault(at, f"',' or '{end}' was expected, not {self._seen(at)}", _JSON_NEXT)
        return (at + 1, True) if seen == end else (self.skip(at + 1), False)

    def _text_at(self, at: int) -> tuple[str, int]:
        try:
            found, end = json.decoder.scanstring(self._text, at + 1, True)  # type: ignore[attr-defined]
        except json.JSONDecodeError as error:
            raise self.fault(error.pos, f"no JSON: {error.msg}", _JSON_TEXT) from None
        if _UNWRITABLE.search(found):
            _writable(found, *_place(self._text, at))
        return found, end

    def _number(self, match: re.Match[str]) -> int | float:
        if match[1] is None and match[2] is None:
            if len(match[0].removeprefix("-")) > MAX_DIGITS:
                raise self.fault(match.start(), f"a number of more than {MAX_DIGITS} digits", "quote it")
            return int(match[0])
        number = float(match[0])
        if abs(number) == float("inf"):
            raise self.fault(match.start(), "a number that is too large", "quote it")
        return number

    def _seen(self, at: int) -> str:
        return f"'{self._text[at]}'" if at < len(self._text) else "the end"


def _writable(text: str, line: int, column: int) -> None:
    """Raises PolicyInvalid for what an escape can name but canonical JSON cannot hold, as half of a surrogate pair."""
    if found := _UNWRITABLE.search(text):
        raise unreadable(f"a character that is no text, U+{ord(found[0]):04X}", line, column, _REMOVE)


def from_yaml(text: str) -> Iterator[Node]:
    """The trees of a YAML text's documents, empty ones left out. Raises PolicyInvalid at the first place that is none."""
    try:
        import yaml
    except ModuleNotFoundError:
        raise unreadable(
            "YAML needs PyYAML, which is not installed here", 0, 0, "pip install pyyaml, or JSON"
        ) from None
    loader: Any = (yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)(text)
    try:
        yield from _documents(_events(loader))
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark
        problem = f"no YAML: {error.problem or error.context}"
        raise unreadable(problem, mark.line + 1, mark.column + 1, _way_out(error, text)) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets what int() and chr() say about an escape or a version number through.
        if isinstance(error, PolicyInvalid):
            raise
        mark = loader.get_mark()
        raise unreadable(f"no YAML: {' '.join(str(error).split())}", mark.line + 1, mark.column + 1, _QUOTE) from None


def _events(loader: Any) -> Iterator[Any]:
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


def _way_out(error: Any, text: str) -> str:
    """What may help against an error of the parser: it knows where the part begins that it does not understand."""
    begin, at = error.context_mark, error.problem_mark
    if text.startswith("\t", at.index):
        return "indent with spaces"
    if "document start" in str(error.problem):
        return "a document ends here, and another begins with ---"
    if begin and begin.index != at.index:
        return f"{error.context}, which begins in line {begin.line + 1}, column {begin.column + 1}"
    return _QUOTE


def _documents(events: Iterator[Any]) -> Iterator[Node]:
    import yaml

    open_: list[_Open] = []
    for event in events:
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            line, column = _allowed(event)
            if len(open_) >= MAX_DEPTH:
                raise unreadable(f"nested more than {MAX_DEPTH} deep", line, column, _FLATTER)
            open_.append(_Open(isinstance(event, yaml.MappingStartEvent), line, column))
            continue
        if isinstance(event, yaml.ScalarEvent):
            line, column = _allowed(event)
            node = Node(_scalar(event, line, column, of_key=bool(open_) and open_[-1].wants_key), line, column)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            node = open_.pop().closed()
        elif isinstance(event, yaml.AliasEvent):
            raise unreadable("an alias", *_mark(event), "write out what it stands for")
        else:
            continue
        if open_:
            open_[-1].add(node)
        elif node.value is not None:
            yield node


class _Open:
    """A list or mapping whose end has not come yet."""

    __slots__ = ("_column", "_is_mapping", "_key", "_line", "_nodes", "_pairs")

    def __init__(self, is_mapping: bool, line: int, column: int) -> None:
        self._is_mapping = is_mapping
        self._line = line
        self._column = column
        self._key: Node | None = None
        self._pairs: list[Entry] = []
        self._nodes: list[Node] = []

    @property
    def wants_key(self) -> bool:
        return self._is_mapping and self._key is None

    def add(self, node: Node) -> None:
        if not self._is_mapping:
            self._nodes.append(node)
        elif self._key is not None:
            self._pairs.append(Entry(str(self._key.value), self._key.line, self._key.column, node))
            self._key = None
        elif isinstance(node.value, str):
            self._key = node
        else:
            raise unreadable("a list or a mapping as a key", node.line, node.column, "a key is a text")

    def closed(self) -> Node:
        return Node(Entries(self._pairs) if self._is_mapping else self._nodes, self._line, self._column)


def _mark(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _allowed(event: Any) -> tuple[int, int]:
    """Where a node begins. Raises PolicyInvalid for an anchor or a tag."""
    line, column = _mark(event)
    if event.anchor is not None:
        raise unreadable(f"an anchor, &{event.anchor}", line, column, "leave it out")
    if event.tag is not None:
        raise unreadable(f"a tag, {event.tag}", line, column, "leave it out; quotes make a text")
    return line, column


def _scalar(event: Any, line: int, column: int, *, of_key: bool) -> Json:
    text: str = event.value
    _writable(text, line, column)
    if of_key or not event.implicit[0]:  # only unquoted text may mean something else
        return text
    found = plain(text)
    if isinstance(found, float) and abs(found) == float("inf"):
        raise unreadable("a number that is too large", line, column, "quote it")
    return found
