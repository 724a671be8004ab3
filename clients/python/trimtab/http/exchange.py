"""One call over HTTP as a plan: which endpoint, what when it cannot be reached, and how the call is accounted for.

The plan does no I/O. It yields the next thing to do, a callable without arguments, and is sent the outcome or thrown the
failure, so that one implementation serves blocking and asynchronous clients of any library.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from trimtab.core.endpoints import Endpoint
from trimtab.errors import NoEndpoints

# A refused connection proves that nothing was sent, so that another endpoint may be tried without asking whether the
# request is idempotent. Three is enough to step over a dying machine without hiding that a whole service is away.
MAX_ENDPOINTS = 3


class PickView(Protocol):
    """An endpoint that was picked; the call counts as in flight there until ``done``."""

    @property
    def endpoint(self) -> Endpoint:
        """Where the call goes."""
        ...

    def done(self, ok: bool = True) -> None:
        """The call is over."""
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One endpoint that was tried; ``error`` is empty for the one that answered."""

    endpoint: Endpoint
    error: str = ""

    def __str__(self) -> str:
        where = f"{self.endpoint.id} ({self.endpoint.target})"
        return f"{where}: {self.error}" if self.error else where


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened to a call: every endpoint that was tried, the last one being the one that answered."""

    service: str
    attempts: tuple[Attempt, ...]

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that answered (or failed last): ``.id``, ``.address``, ``.port``, ``.metadata``."""
        return self.attempts[-1].endpoint


class Unreachable(Exception):
    """No endpoint that was tried could be connected to; nothing was sent. The transports translate it."""

    def __init__(self, trace: Trace, cause: Exception) -> None:
        tried = "; ".join(str(attempt) for attempt in trace.attempts)
        super().__init__(f"{trace.service}: no connection to any of {len(trace.attempts)} endpoint(s) tried: {tried}")
        self.trace = trace
        self.cause = cause


Plan = Generator[Callable[[], Any], Any, tuple[Any, PickView, Trace]]


def exchange(
    service: str,
    choose: Callable[[Collection[str]], Any],
    send: Callable[[PickView], Any],
    never_sent: Callable[[BaseException], bool],
) -> Plan:
    """The plan of one call; it returns the answer, the pick (still counted as in flight) and the trace.

    ``choose`` picks an endpoint other than the given ids, ``send`` sends the request there, ``never_sent`` tells the
    failures after which nothing can have reached the callee. Raises NoEndpoints when there is none to pick, Unreachable
    when none could be connected to, and else what ``send`` raised, with the endpoint named in it.
    """
    tried: list[Attempt] = []
    failure: Exception | None = None
    while len(tried) < MAX_ENDPOINTS:
        try:
            pick = yield partial(choose, [attempt.endpoint.id for attempt in tried])
        except NoEndpoints:
            if failure is None:
                raise
            break
        try:
            response = yield partial(send, pick)
        except BaseException as error:
            pick.done(False)
            attempt = Attempt(pick.endpoint, _words(error))
            if not isinstance(error, Exception) or not never_sent(error):
                name_endpoint(error, Trace(service, (*tried, attempt)))
                raise
            tried.append(attempt)
            failure = error
        else:
            return response, pick, Trace(service, (*tried, Attempt(pick.endpoint)))
    assert failure is not None
    raise Unreachable(Trace(service, tuple(tried)), failure)


def drive(plan: Plan) -> tuple[Any, PickView, Trace]:
    """Carries a plan out in the calling thread."""
    try:
        step = next(plan)
        while True:
            try:
                outcome = step()
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(outcome)
    except StopIteration as end:
        return cast("tuple[Any, PickView, Trace]", end.value)


async def drive_async(plan: Plan) -> tuple[Any, PickView, Trace]:
    """Carries a plan out whose steps return awaitables."""
    try:
        step = next(plan)
        while True:
            try:
                outcome = await cast("Awaitable[Any]", step())
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(outcome)
    except StopIteration as end:
        return cast("tuple[Any, PickView, Trace]", end.value)


def name_endpoint(error: BaseException, trace: Trace) -> None:
    """Says in a library's own error which endpoint it was, and leaves the trace on it as ``error.trimtab``."""
    where = f"[{trace.service} at {trace.endpoint.target}]"
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]} {where}",)
    else:
        error.add_note(where)
    error.__dict__["trimtab"] = trace


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
