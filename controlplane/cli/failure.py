"""How a command fails: what is printed, and the exit code that scripts rely on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import IO, Any

import click

from controlplane.errors import Code, TrimtabError, Violation


class Exit(IntEnum):
    """Exit codes. They never change their meaning."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    UNAUTHORISED = 4
    FAILED = 5
    INTERRUPTED = 130


EXIT_CODES = (
    (Exit.OK, "done"),
    (Exit.REFUSED, "refused: not found, conflicting or invalid"),
    (Exit.USAGE, "wrong usage or settings"),
    (Exit.UNREACHABLE, "no server, or it is not ready or has lost its store: worth trying again"),
    (Exit.UNAUTHORISED, "not authorised"),
    (Exit.FAILED, "the server failed, or is none of Trimtab's"),
    (Exit.INTERRUPTED, "interrupted"),
)

_BY_STATUS = {
    401: Exit.UNAUTHORISED,
    403: Exit.UNAUTHORISED,
    502: Exit.UNREACHABLE,
    503: Exit.UNREACHABLE,
    504: Exit.UNREACHABLE,
}


class Failure(click.ClickException):
    """A failure with its stable code (if it has one), the places, and the way out."""

    def __init__(
        self, exit_code: Exit, message: str, *, code: str = "", hint: str = "", places: Iterable[Violation] = ()
    ) -> None:
        super().__init__(message)
        self.reason = exit_code
        self.code = code
        self.hint = hint
        self.places = tuple(places)

    @property
    def exit_code(self) -> Exit:  # type: ignore[override]  # click's is a class variable
        """What the process ends with."""
        return self.reason

    def show(self, file: IO[Any] | None = None) -> None:
        """Print to stderr."""
        head = click.style("error", fg="red", bold=True) + (f" {self.code}" if self.code else "")
        say(f"{head}: {self.message}")
        for place in self.places:
            say(f"  {place}")
        if self.hint:
            say(f"  hint: {self.hint}")


def of_error(error: TrimtabError) -> Failure:
    """A failure of something that ran in this process."""
    exit_code = Exit.USAGE if error.code is Code.SETTINGS else _exit_code(error.code.http_status)
    return Failure(exit_code, error.message, code=error.code.code, hint=error.hint, places=error.violations)


def of_problem(status: int, problem: Mapping[str, Any]) -> Failure:
    """A server's refusal, as it told it."""
    fields = {"path": "", "message": "", "hint": "", "line": 0, "column": 0}
    places = [
        Violation(**{name: p.get(name, none) for name, none in fields.items()}) for p in problem.get("errors", [])
    ]
    message = problem.get("detail") or problem.get("title") or f"HTTP {status}"
    return Failure(
        _exit_code(status), message, code=problem.get("code", ""), hint=problem.get("hint", ""), places=places
    )


def say(message: str) -> None:
    """A line for people, on stderr."""
    click.echo(message, err=True, color=color())


def color() -> bool | None:
    """False under NO_COLOR; None leaves it to whether the stream is a terminal."""
    return False if os.environ.get("NO_COLOR") else None


def _exit_code(status: int) -> Exit:
    return _BY_STATUS.get(status, Exit.FAILED if status >= 500 else Exit.REFUSED)
