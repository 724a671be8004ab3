"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from controlplane.core.defaults import DEFAULT_NAMESPACE

Command = TypeVar("Command", bound=Callable[..., Any])


def namespace_option(command: Command) -> Command:
    """Add ``-n``."""
    return click.option(
        "-n",
        "--namespace",
        default=DEFAULT_NAMESPACE,
        envvar="TRIMTAB_NAMESPACE",
        show_default=True,
        show_envvar=True,
        help="Namespace.",
    )(command)


def watch_option(command: Command) -> Command:
    """Add ``-w``."""
    return click.option("-w", "--watch", is_flag=True, help="Go on, and print what changes.")(command)


class Pair(click.ParamType[tuple[str, str]]):
    """``LEFT/RIGHT``, both present."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split at the first slash."""
        left, _, right = str(value).partition("/")
        if not left or not right:
            self.fail(f"{value!r} is not {self.name}", param, ctx)
        return left, right
