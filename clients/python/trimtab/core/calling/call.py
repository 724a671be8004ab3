"""One call: what it may still do while it is under way, and what became of it, for its caller to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from trimtab.core.endpoints import Endpoint, Tally
from trimtab.core.retrying.conditions import Outcome

if TYPE_CHECKING:
    from trimtab.core.breaking.breaker import CircuitBreaker
    from trimtab.core.calling.observed import Dispatch
    from trimtab.core.calling.pipeline import Pipeline


class Attempt(NamedTuple):
    """One endpoint that was tried. ``error`` is empty for the one that answered; ``seconds`` until its answer or failure."""

    endpoint: Endpoint | None
    error: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        where = "no endpoint" if self.endpoint is None else f"{self.endpoint.id} ({self.endpoint.target})"
        return f"{where}: {self.error}" if self.error else where


class _Unsaid:
    """What a call starts with, and mostly ends with: read from here, so that it costs a call nothing."""

    headers: Mapping[str, str] | None = None
    arguments: Mapping[str, Any] | None = None
    key: int | None = None
    once: bool = False  # what was sent cannot be sent again
    abort: Outcome | None = None  # what the attempt comes to instead of being sent: an injected fault
    local: bool = False  # a call that needs no endpoint
    wait: float = 0.0  # seconds, before the first attempt; 0 when they are over
    refused: str = ""
    waiting: bool = False  # for one more attempt
    outcome: Outcome | None = None  # of the newest attempt, None while it is good; or that the call was given up
    error: str = ""
    rested: int = 0  # attempts up to the last pushback of the callee: the backoff begins anew after it
    borrowed: bool = False  # the attempt was taken from the retry budget
    fallback: str = ""
    age: float = 0.0
    dispatch: Dispatch | None = None  # of the attempt under way, where somebody listens
    notes: dict[Any, Any] | None = None  # there, what hooks keep of the call from one moment to the next


class Call(_Unsaid):
    """One call through a pipeline. Every response and every error of a call carries it, as its trace.

    ``attempts`` are all endpoints that were tried, the one that answered (or failed last) at the end. ``refused``: the
    policy section that kept the call from being sent. ``fallback``: where the answer came from when it was not the callee
    ("cache", "value", "function", or another service's name), and ``age``, how old it is in seconds.
    """

    __slots__ = (
        "admitted", "began", "circuit", "deadline", "endpoint", "idempotent", "method", "permit", "pipeline", "seconds",
        "sent_at", "tally", "tried", "turn", "until",
    )  # fmt: skip

    # Said by ``Pipeline.begin`` for every call. There is no constructor: it would double the price.
    pipeline: Pipeline
    began: float  # seconds of a monotonic clock
    sent_at: float  # the newest attempt
    until: float | None  # when that is to be over; None: it has no end
    method: str
    deadline: float | None
    idempotent: bool
    endpoint: Endpoint | None
    tally: Tally | None  # while it is in flight
    circuit: CircuitBreaker | None
    admitted: int  # gates that let it in, which it has to leave
    tried: tuple[Attempt, ...]
    seconds: float

    # Said where they are needed.
    permit: int  # of the circuit
    turn: float  # the place that a rate limiter gave it

    @classmethod
    def unsent(cls, pipeline: Pipeline, now: float) -> Call:
        """A call that failed before it was let in."""
        call = cls()
        call.pipeline = pipeline
        call.began = call.sent_at = now
        call.method = ""
        call.idempotent = True
        call.deadline = call.until = call.endpoint = call.tally = call.circuit = None
        call.admitted = 0
        call.seconds = 0.0
        call.tried = ()
        return call

    @property
    def sent(self) -> bool:
        """The newest attempt was made, or is."""
        return self.endpoint is not None or (self.local and not self.refused)

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

    def start(self, now: float) -> None:
        """A further attempt begins, or the first one that had to wait."""
        self.sent_at = now
        attempt, deadline = self.pipeline.attempt_timeout, self.deadline
        self.until = (
            deadline if attempt is None or (deadline is not None and deadline - now < attempt) else now + attempt
        )

    def timeout(self, now: float) -> float | None:
        """Seconds that are left for the attempt; None: without end."""
        return None if self.until is None else self.until - now

    def __repr__(self) -> str:
        told = "; ".join(map(str, self.attempts)) or (f"refused by {self.refused}" if self.refused else "not sent")
        if self.fallback:
            told += f"; answered by fallback ({self.fallback})"
        return f"<Call {self.service}: {told}>"
