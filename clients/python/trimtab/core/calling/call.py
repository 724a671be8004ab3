"""One call: what it may still do while it is under way, and what became of it, for its caller to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from trimtab.core.endpoints import Endpoint, Tally
from trimtab.core.retrying.conditions import Outcome

if TYPE_CHECKING:
    from trimtab.core.breaking.breaker import CircuitBreaker
    from trimtab.core.calling.pipeline import Pipeline


class Attempt(NamedTuple):
    """One endpoint that was tried. ``error`` is empty for the one that answered; ``seconds`` until its answer or failure."""

    endpoint: Endpoint | None
    error: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        where = "no endpoint" if self.endpoint is None else f"{self.endpoint.id} ({self.endpoint.target})"
        return f"{where}: {self.error}" if self.error else where


class Call:
    """One call through a pipeline. Every response and every error of a call carries it, as its trace.

    ``attempts`` are all endpoints that were tried, the one that answered (or failed last) at the end. ``refused``: the
    policy section that kept the call from being sent. ``fallback``: where the answer came from when it was not the callee
    ("cache", "value", "function", or another service's name), and ``age``, how old it is in seconds.
    """

    pipeline: Pipeline
    began: float  # seconds of a monotonic clock
    sent_at: float  # the newest attempt

    # A class's values, and no constructor, so that what a call leaves as it is costs it nothing.
    method: str = ""
    deadline: float | None = None
    idempotent: bool = True
    headers: Mapping[str, str] | None = None
    arguments: Mapping[str, Any] | None = None
    key: int | None = None
    once: bool = False  # what was sent cannot be sent again
    abort: Outcome | None = None  # what the attempt comes to instead of being sent: an injected fault
    local: bool = False  # a call that needs no endpoint
    wait: float = 0.0  # seconds, before the first attempt
    turn: float = 0.0  # the place that a rate limiter gave it
    admitted: int = 0  # gates that let it in, which it has to leave
    refused: str = ""
    sent: bool = False
    endpoint: Endpoint | None = None
    tally: Tally | None = None  # while it is in flight
    circuit: CircuitBreaker | None = None
    permit: int = 0
    outcome: Outcome | None = None  # of the newest attempt, None while it is good
    error: str = ""
    seconds: float = 0.0
    rested: int = 0  # attempts up to the last pushback of the callee: the backoff begins anew after it
    borrowed: bool = False  # the attempt was taken from the retry budget
    tried: tuple[Attempt, ...] = ()
    fallback: str = ""
    age: float = 0.0

    @property
    def service(self) -> str:
        """``NAMESPACE/SERVICE``."""
        return self.pipeline.service

    @property
    def policy(self) -> int:
        """Store revision of the policy that held for the call; 0: only what is built in."""
        return self.pipeline.revision

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every endpoint that was tried."""
        return (*self.tried, Attempt(self.endpoint, self.error, self.seconds)) if self.sent else self.tried

    def remaining(self, now: float) -> float | None:
        """Seconds that are left for the whole call; None: without end."""
        return None if self.deadline is None else self.deadline - now

    def timeout(self, now: float) -> float | None:
        """Seconds that an attempt may take which begins now; None: without end."""
        attempt = self.pipeline.attempt_timeout
        if self.deadline is None:
            return attempt
        left = self.deadline - now
        return left if attempt is None or left < attempt else attempt

    def __repr__(self) -> str:
        told = "; ".join(map(str, self.attempts)) or (f"refused by {self.refused}" if self.refused else "not sent")
        if self.fallback:
            told += f"; answered by fallback ({self.fallback})"
        return f"<Call {self.service}: {told}>"
