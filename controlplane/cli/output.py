"""Prints resources: as a table, as data, as names; at once or as they change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from controlplane.cli.failure import color, say
from controlplane.cli.table import COLOURS, Column, Item, Kind

FORMATS = ("table", "wide", "json", "yaml", "name")
GAP = "   "

Command = TypeVar("Command", bound=Callable[..., Any])


def output_option(command: Command) -> Command:
    """Add ``-o``."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How to print what was found.",
    )(command)


def show_listing(kind: Kind, listing: dict[str, Any], output: str, *, of: str) -> None:
    """Print a listing. An empty table says so on stderr."""
    items = listing["items"]
    if output in {"json", "yaml"}:
        echo(document(listing, output))
    elif output == "name":
        for item in items:
            echo(kind.name(item))
    elif not items:
        say(f"no {kind.plural} in {of}")
    else:
        table = Table(kind, wide=output == "wide")
        table.fit(items)
        table.header()
        for item in items:
            table.row(item)


def show_one(kind: Kind, item: dict[str, Any], output: str) -> None:
    """Print a single resource."""
    if output in {"json", "yaml"}:
        echo(document(item, output))
    else:
        show_listing(kind, {"items": [item]}, output, of="")


class Stream:
    """Prints resources as they change: rows, one JSON document a line, or YAML documents."""

    def __init__(self, kind: Kind, output: str) -> None:
        self._kind = kind
        self._output = output
        self._table = Table(kind, wide=output == "wide") if output in {"table", "wide"} else None
        self._begun = False

    def show(self, changed: Sequence[Item], removed: Sequence[Item]) -> None:
        """Print what changed and what is gone."""
        if self._table is not None and not self._begun:
            self._table.fit(changed)
            self._table.header()
        self._begun = True
        for event, items in (("changed", changed), ("removed", removed)):
            for item in items:
                self._one(event, item)

    def _one(self, event: str, item: Item) -> None:
        if self._table is not None:
            self._table.row(item, gone=event == "removed")
        elif self._output == "json":
            echo(json.dumps({"event": event, "object": item}, ensure_ascii=False))
        elif self._output == "yaml":
            echo("---\n" + document({"event": event, "object": item}, "yaml"))
        elif event == "changed":
            echo(self._kind.name(item))


class Table:
    """Aligned columns; later rows keep the widths of the first ones."""

    def __init__(self, kind: Kind, *, wide: bool) -> None:
        self._kind = kind
        self._columns: list[Column] = kind.shown(wide=wide)
        self._widths = [max(len(column.title), column.room) for column in self._columns]

    def fit(self, items: Iterable[Item]) -> None:
        """Make room for ``items``."""
        for item in items:
            for at, column in enumerate(self._columns):
                self._widths[at] = max(self._widths[at], len(_cell(column, item)))

    def header(self) -> None:
        """Print the titles."""
        self._print([column.title for column in self._columns], styled=False)

    def row(self, item: Item, *, gone: bool = False) -> None:
        """Print one item."""
        self._print(
            ["GONE" if gone and column.title == self._kind.state else _cell(column, item) for column in self._columns]
        )

    def _print(self, cells: Sequence[str], *, styled: bool = True) -> None:
        last = len(cells) - 1
        padded = [cell if at == last else cell.ljust(self._widths[at]) for at, cell in enumerate(cells)]
        shown = [
            click.style(text, fg=COLOURS[cell]) if styled and cell in COLOURS else text
            for text, cell in zip(padded, cells, strict=True)
        ]
        echo(GAP.join(shown).rstrip())


def document(value: object, output: str) -> str:
    """JSON, or YAML without the trailing newline."""
    if output == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text.rstrip("\n")


def echo(text: str) -> None:
    """A line of data, on stdout, at once: a watch's reader may be a pipe."""
    click.echo(text, color=color())


def _cell(column: Column, item: Item) -> str:
    """A cell's text. What clients sent may hold anything: nothing in it may steer the terminal."""
    text = str(column.cell(item))
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
