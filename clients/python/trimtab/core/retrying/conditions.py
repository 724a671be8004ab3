"""What an attempt came to, and whether that may be tried again.

Source: gRFC A6 (what the callee never saw may always be sent again), RFC 9110 section 9.2.2 (idempotent methods), the IETF
draft of the Idempotency-Key header, Envoy's table of gRPC codes as HTTP statuses (whose fault a code is).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from trimtab.policy.sections import Retry

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_IDEMPOTENCY_KEY = "idempotency-key"
CONNECT_FAILURE = "connect-failure"
_TIMEOUT, _DEADLINE_EXCEEDED = "timeout", "DEADLINE_EXCEEDED"
_TOO_MANY_REQUESTS = "429"
# Codes that the same call would meet anywhere, because of what it asks for. RESOURCE_EXHAUSTED is not one of them, nor is
# 429: they say that there is too much to do here and now.
_OF_THE_CALLER = frozenset({
    "CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "UNAUTHENTICATED",
})  # fmt: skip
_SERVER_ERRORS = frozenset(str(status) for status in range(500, 600))


class Outcome(NamedTuple):
    """What an attempt came to.

    ``condition``: an event of the policy (``connect-failure``, ``reset``, ``timeout``, ``exception``), an HTTP status or the
    name of a gRPC code; for a good answer the same, or ``OK``. ``failed``: the callee's fault. ``sent``: the callee may have
    seen the request; false for a connection that was never made, a refused stream, or a GOAWAY before the stream.
    ``counted``: says something about the callee; false for a cancellation, or a mistake of the caller. ``pushback``: seconds
    after which the callee wants to be tried again, negative: not at all; None: it said nothing.
    """

    condition: str
    failed: bool = True
    sent: bool = True
    counted: bool = True
    pushback: float | None = None


OK = Outcome("OK", failed=False)
# Given up by its caller, or ended by a failure of the caller's own: it says nothing of the callee.
CANCELLED = Outcome("cancelled", failed=False, counted=False)


def outcome_of(condition: str, pushback: float | None = None) -> Outcome:
    """What an event, an HTTP status of 400 and above, or a gRPC code other than OK says of the callee.

    A callee that tells its caller of a mistake (404, NOT_FOUND) answered as it should; a cancelled call says nothing of it.
    """
    if condition in _OF_THE_CALLER or (condition[0] == "4" and condition != _TOO_MANY_REQUESTS):
        return Outcome(condition, failed=False, counted=condition != "CANCELLED", pushback=pushback)
    return Outcome(condition, sent=condition != CONNECT_FAILURE, pushback=pushback)


class Retryable:
    """What may be tried again under these settings; None where ``retry`` is off, which leaves what was never sent."""

    __slots__ = ("_always", "_off", "_on")

    def __init__(self, settings: Retry | None) -> None:
        on = frozenset(settings.on) if settings is not None else frozenset()
        if "5xx" in on:
            on |= _SERVER_ERRORS
        # The time of an attempt is kept by gRPC itself, which has this word for it.
        self._on = on | {_DEADLINE_EXCEEDED} if _TIMEOUT in on else on
        self._always = settings is not None and settings.when == "always"
        self._off = settings is None

    def allows(self, outcome: Outcome, idempotent: bool) -> bool:
        """Whether another attempt is safe and worth it. ``idempotent``: sending the call twice does no harm."""
        if not outcome.sent:
            return outcome.failed
        return outcome.condition in self._on and (idempotent or self._always)

    def costs(self, outcome: Outcome) -> bool:
        """Whether a failure tells a throttle that its callee has enough: one worth another attempt, safe or not, or one after
        which the callee wants none. Where only copies are sent, it is any failure."""
        refused = outcome.pushback is not None and outcome.pushback < 0.0
        return self._off or refused or not outcome.sent or outcome.condition in self._on


def idempotent(http_method: str, headers: Iterable[str] = ()) -> bool:
    """Whether an HTTP request may be sent twice: by its method, or by an ``Idempotency-Key`` among the header names."""
    return http_method in IDEMPOTENT_METHODS or any(name.lower() == _IDEMPOTENCY_KEY for name in headers)
