"""How long a call may take, and how often it is tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trimtab.policy.forms import Choice, Contradiction, Count, ListOf, Nested, Number, form
from trimtab.policy.quantities import Duration, Share, Span, duration_text
from trimtab.policy.words import CONDITION

SAFE = Choice(("idempotent", "always"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """How long a call may take until its answer begins. One budget is shared by all attempts, and told to the callee."""

    total: float | None = form(Duration(), None, "All attempts and the waits between them together.")
    attempt: float | None = form(Duration(), None, "One attempt; never more than what is left of the total.")

    def contradictions(self) -> Iterator[Contradiction]:
        """Nothing said, or an attempt that is longer than the whole."""
        if self.total is None and self.attempt is None:
            yield Contradiction("", "says nothing", "say total or attempt, or off for no timeout")
        if self.total is not None and self.attempt is not None and self.attempt > self.total:
            message = f"{duration_text(self.attempt)} is longer than the total of {duration_text(self.total)}"
            yield Contradiction("attempt", message, "leave it out, or make it shorter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many retries there may be beside first attempts, over the last ten seconds."""

    ratio: float = form(Share(), 0.2, "Retries for each call.")
    at_least: int = form(Count(0, 1000), 3, "Retries that may always be under way at the same time.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenThrottle:
    """gRFC A6's throttle: what may be tried again costs a token, a success earns ``ratio``; retries need more than half."""

    tokens: float = form(Number(1, 1000), 10.0, "Tokens at the start, and at most.")
    ratio: float = form(Number(0.001, 10), 0.1, "Tokens earned by a success.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Trying again, elsewhere if possible. What was sent is only sent again when that is safe (``when``).

    A connection that was never made is always tried on another endpoint, also where ``retry`` is off.
    """

    attempts: int = form(Count(1, 10), 3, "All attempts, the first included.")
    on: tuple[str, ...] = form(
        ListOf(CONDITION), ("connect-failure", "reset", "503", "UNAVAILABLE"), "What is worth another attempt."
    )
    backoff: tuple[float, float] = form(Span(), (0.025, 1.0), "The first wait, and the longest.")
    multiplier: float = form(Number(1, 10), 2.0, "By how much each wait is longer than the last.")
    when: str = form(
        SAFE,
        "idempotent",
        "idempotent: only methods that are by definition, calls marked so or with an idempotency key.",
    )
    budget: Budget | None = form(Nested(Budget, scalar="ratio"), None, "Limits retries by a share of the calls.")
    throttle: TokenThrottle | None = form(
        Nested(TokenThrottle, scalar="tokens"),
        None,
        "Limits retries by tokens. With neither: by tokens, with the defaults.",
    )

    def contradictions(self) -> Iterator[Contradiction]:
        """Two ways to limit retries."""
        if self.budget and self.throttle:
            yield Contradiction("throttle", "there is a budget already", "one of the two")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """Another copy of a slow call, sent elsewhere; the first good answer wins. Only where repeating is safe, and there
    instead of ``retry``.
    """

    delay: float = form(Duration(0.0), 0.1, "How long to wait for an answer before each further copy.")
    attempts: int = form(Count(2, 10), 2, "All copies, the first included.")
    when: str = form(SAFE, "idempotent", "As in retry.")
