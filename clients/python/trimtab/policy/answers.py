"""What a caller gets instead of the callee's answer: fallbacks, and injected faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trimtab.policy.forms import Anything, Choice, Contradiction, Count, ListOf, Nested, form
from trimtab.policy.quantities import Duration, Share
from trimtab.policy.words import FAILURE, NAME

REASONS = ("failure", "refused", "timeout", "no-endpoints")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """The last good answers, for when there is no new one."""

    max_age: float = form(Duration(), 300.0, "Older answers are of no use.")
    entries: int = form(Count(1, 100_000), 256, "Answers kept, least recently used ones go first.")
    size: int = form(Count(0, 16_777_216), 65_536, "Bytes of an answer that is kept at most.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """What a caller gets when the call failed for good. It can always see that it was a fallback."""

    cache: Cache | None = form(Nested(Cache, scalar="max_age"), None, "The last good answer to the same request.")
    service: str | None = form(NAME, None, "Another service of the namespace to ask, once.")
    value: str | None = form(Anything(), None, "A fixed answer: a JSON value.")
    status: int = form(Count(200, 599), 200, "The HTTP status of a fixed answer.")
    on: tuple[str, ...] = form(
        ListOf(Choice(REASONS)),
        REASONS,
        "Why the call must have failed. refused: by a limit or an open circuit here.",
    )

    def contradictions(self) -> Iterator[Contradiction]:
        """Nothing to fall back to."""
        if self.cache is None and self.service is None and self.value is None:
            yield Contradiction("", "there is nothing to fall back to", "say cache, service or value, or off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """An injected delay."""

    time: float = form(Duration(), 0.1, "How long.")
    share: float = form(Share(), 1.0, "Of how many calls.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """An injected failure, which never reaches an endpoint."""

    status: str = form(FAILURE, "503", "What it looks like: an HTTP status, a gRPC code, or connect-failure.")
    share: float = form(Share(), 1.0, "Of how many attempts.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Fault injection, to see in a running system what all the rest does."""

    delay: Delay | None = form(Nested(Delay, scalar="time"), None, "Wait before calls.")
    abort: Abort | None = form(Nested(Abort, scalar="status"), None, "Fail attempts.")

    def contradictions(self) -> Iterator[Contradiction]:
        """Nothing to inject."""
        if self.delay is None and self.abort is None:
            yield Contradiction("", "says nothing", "say delay or abort, or off")
