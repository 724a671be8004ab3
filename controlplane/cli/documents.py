"""Policy documents in files: several in one, each checked here before a server is asked, with the place of what is wrong."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.failure import Exit, Failure
from controlplane.errors import Code, Violation

if TYPE_CHECKING:
    from trimtab.policy.model import ServicePolicy

SUFFIXES = (".yaml", ".yml", ".json")

# At the start of a line this always ends a document, also within a block of text (YAML 1.2, section 9.1.4).
_MARKER = re.compile(r"---(\s|$)")
# What belongs to the document after it, as %YAML 1.2: after an end, or where the file begins (section 9.2).
_DIRECTIVE = re.compile(r"%")
_END = re.compile(r"\.\.\.(\s|$)")
_SILENT = re.compile(r"\s*(#.*)?$")
_EMPTY = re.compile(r"((---|\.\.\.)(?=\s|$))?\s*(#.*)?$")


@dataclass(frozen=True, slots=True)
class Text:
    """One document as it stands in a file; its first line is line ``start`` + 1 there."""

    file: str
    start: int
    content: bytes

    @property
    def media_type(self) -> str:
        """What it is sent as."""
        try:
            json.loads(self.content)
        except ValueError:
            return "application/yaml"
        return "application/json"

    def place(self, wrong: Violation) -> Violation:
        """As FILE:LINE:COLUMN, which editors and terminals jump to."""
        at = f"{self.file}:{self.start + wrong.line}:{wrong.column}" if wrong.line else self.file
        return Violation(at, f"{wrong.path}: {wrong.message}" if wrong.path else wrong.message, wrong.hint)


@dataclass(frozen=True, slots=True)
class Document:
    """A policy and the text that says so."""

    text: Text
    policy: ServicePolicy


def read(sources: Sequence[str]) -> list[Document]:
    """The policies in files, directories (not those below them) and, for ``-``, stdin. Raises Failure with every place."""
    found: list[Document] = []
    wrong: list[Violation] = []
    for text in (text for source in sources for file in _files(source) for text in split(*file)):
        try:
            found.append(Document(text, _policy(text)))
        except _Refused as refused:
            wrong += refused.places
    wrong += _twice(found)
    if wrong:
        raise invalid(wrong)
    if not found:
        raise Failure(Exit.USAGE, f"no policy in {', '.join(sources)}", hint="a document has `kind: ServicePolicy`")
    return found


def invalid(places: Iterable[Violation]) -> Failure:
    """The refusal of everything, because of these places."""
    return Failure(Exit.REFUSED, "nothing was written", code=Code.POLICY_INVALID.code, places=places)


def split(file: str, content: bytes) -> Iterator[Text]:
    """The documents of a file, without those that are empty."""
    # Not splitlines: a form feed, which no document may have, would be a line to it, and to no editor.
    lines = list(StringIO(content.decode(errors="surrogateescape").removeprefix("\ufeff"), newline=""))
    starts = [0, *(_begin(lines, at) for at, line in enumerate(lines) if _MARKER.match(line))]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        first = start + 1 if start < end and lines[start].strip() == "---" else start
        said = lines[first:end]
        if not all(map(_EMPTY.match, said)):
            yield Text(file, first, "".join(said).encode(errors="surrogateescape"))


def _begin(lines: Sequence[str], marker: int) -> int:
    """Where the document begins that is marked there: with its directives, if it has any."""
    above = marker
    while above and (_SILENT.match(lines[above - 1]) or _DIRECTIVE.match(lines[above - 1])):
        above -= 1
    of_its_own = above == 0 or _END.match(lines[above - 1])
    return above if of_its_own and any(map(_DIRECTIVE.match, lines[above:marker])) else marker


class _Refused(Exception):
    def __init__(self, places: list[Violation]) -> None:
        super().__init__()
        self.places = places


def _policy(text: Text) -> ServicePolicy:
    from trimtab.policy import reading
    from trimtab.policy.problems import PolicyInvalid

    try:
        return reading.read(text.content)
    except PolicyInvalid as refused:
        places = [Violation(p.path, p.message, p.hint, p.line, p.column) for p in refused.problems]
        raise _Refused([text.place(place) for place in places]) from None


def _files(source: str) -> list[tuple[str, bytes]]:
    if not source:  # an unset variable of a shell, which Path would take for this directory
        raise click.UsageError("-f names nothing")
    if source == "-":
        if sys.stdin.isatty():
            raise click.UsageError("nothing to read: pipe a document in, or name a file")
        return [("<stdin>", sys.stdin.buffer.read())]
    try:
        if Path(source).is_dir():
            inside = sorted(file for file in Path(source).iterdir() if file.suffix in SUFFIXES and file.is_file())
            if not inside:
                raise Failure(Exit.USAGE, f"{source} has no {', '.join(SUFFIXES)}")
            return [(str(file), file.read_bytes()) for file in inside]
        return [(source, Path(source).read_bytes())]
    except OSError as error:
        raise Failure(Exit.USAGE, f"{source} cannot be read: {error.strerror}") from None


def _twice(found: Sequence[Document]) -> Iterator[Violation]:
    first: dict[str, Any] = {}
    for document in found:
        name, text = str(document.policy), document.text
        if (before := first.setdefault(name, text)) is not text:
            at = f"{before.file}:{before.start + 1}:1"
            yield Violation(
                f"{text.file}:{text.start + 1}:1", f"{name} is here for the second time", f"the first is {at}"
            )
