"""One HTTP request on its way through the call path, whichever library sends it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple, Self

from trimtab.calling.context import deadline as inherited
from trimtab.calling.drive import call_of, run
from trimtab.calling.lanes import Lanes
from trimtab.calling.mirror import Work, mirror
from trimtab.core.calling.call import Call
from trimtab.core.calling.fallbacks import Reason, reason
from trimtab.core.calling.observed import Dispatch
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.clock import Clock
from trimtab.core.crew import Crew
from trimtab.core.orca import LOAD_HEADER, LoadReport
from trimtab.core.retrying.conditions import IDEMPOTENT_METHODS, OK, Outcome, idempotent
from trimtab.errors import DeadlineExceeded, MeshClosed, NoEndpoints, Rejected, RetriesExhausted
from trimtab.http.keeping import identity, worth_keeping
from trimtab.http.meaning import TIMEOUT, adopt, exhausted, name_endpoint, too_late
from trimtab.http.target import Target, endpoint_scheme


class Answer(NamedTuple):
    """What is kept of a good answer, to be given again when there is no new one."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Exchange(ABC):
    """A request, and how its library sends it and builds its responses. A transport of ``calling.drive``."""

    method: str
    url: str

    # What the driver needs

    @abstractmethod
    async def send(self, call: Call) -> Any:
        """Send it to the call's endpoint. Raises what the library raises."""

    @abstractmethod
    def judge(self, answer: Any) -> Outcome:
        """What an answer means."""

    @abstractmethod
    def blame(self, error: BaseException) -> Outcome:
        """What an exception of ``send`` means."""

    @abstractmethod
    async def discard(self, answer: Any, call: Call) -> None:
        """Give the connection of an answer back unread."""

    @abstractmethod
    async def sleep(self, clock: Clock, seconds: float) -> None:
        """Wait."""

    def dispatch(self, call: Call) -> Dispatch:
        """What is sent, for hooks."""
        assert call.endpoint is not None
        return Dispatch("http", endpoint_scheme(call.endpoint.metadata, self.scheme), self.facts()[0])

    @abstractmethod
    def status(self, answer: Any) -> str:
        """The HTTP status of an answer."""

    def load(self, answer: Any) -> LoadReport | None:
        """What an answer tells of the callee's load."""
        return LoadReport.from_text(answer.headers.get(LOAD_HEADER, ""))

    @abstractmethod
    def twin(self) -> Self:
        """What can send the same request at the same time."""

    @abstractmethod
    def lanes(self, crew: Crew) -> Lanes:
        """Where copies of the request run beside each other."""

    @abstractmethod
    def aside(self, crew: Crew, work: Work, done: Callable[[], object], context: Context) -> None:
        """Do ``work`` beside calls. ``done`` is called at the end in any case."""

    # What a request of this library is

    @property
    @abstractmethod
    def scheme(self) -> str | None:
        """What to speak, when the client insists."""

    @abstractmethod
    def facts(self) -> tuple[str, Any]:
        """Path without query, and headers."""

    @property
    @abstractmethod
    def repeatable(self) -> bool:
        """The body can be sent again: it is not made while it is sent."""

    @abstractmethod
    def answered(self, answer: Any, call: Call) -> None:
        """This is the answer that the caller gets: have its body end the call, and leave the trace on it."""

    @abstractmethod
    def restored(self, value: Answer | Any, status: int, call: Call) -> Any:
        """A response from what a fallback holds: an Answer that was kept, or a JSON value with ``status``."""

    @abstractmethod
    def failed(self, error: BaseException) -> bool:
        """Whether an exception is the library's way to say that a request failed on the wire."""

    @property
    def identity(self) -> Hashable:
        """What makes two requests ask for the same."""
        # Libraries keep what they have read, which is not the same of all: decoded, or as it came.
        return type(self), *identity(self.method, self.url, self.facts()[1])

    def keeps(self, call: Call, status: int, headers: Mapping[str, str]) -> bool:
        """Whether an answer of this ``status`` and with these ``headers`` is to be kept for a fallback."""
        fallbacks = call.pipeline.fallbacks
        if fallbacks is None or not fallbacks.keeps or call.outcome is not None:
            return False
        return worth_keeping(self.method, self.facts()[1], status, headers)

    def begin(self, pipeline: Pipeline) -> Call:
        """Let the call in. Raises what refuses it."""
        method = self.method
        harmless = method in IDEMPOTENT_METHODS or idempotent(method, self.facts()[1])
        if pipeline.keyed:
            headers = self.facts()[1]
            call = pipeline.begin(pipeline.now(), method, inherited.get(), harmless, headers=headers)
        else:
            call = pipeline.begin(pipeline.now(), method, inherited.get(), harmless)
        return call

    def told(self, error: Exception) -> Exception:
        """What the failure of a call is told as: every attempt when there were several, else where it happened."""
        call = error.__dict__.get("trimtab")
        if not isinstance(call, Call) or isinstance(error, (Rejected, NoEndpoints)):
            return error
        now = call.pipeline.now()
        if call.deadline is not None and self.blame(error) is TIMEOUT and now >= call.deadline:
            told: Exception = DeadlineExceeded(too_late(call, now))
        elif len(call.attempts) > 1 and self.failed(error):
            told = adopt(RetriesExhausted(exhausted(call), call.attempts), type(error))
            # What the library's own kind of error tells beside its message.
            told.__dict__.update(error.__dict__ | told.__dict__)
        else:
            name_endpoint(error, call)
            return error
        told.__dict__["trimtab"] = call
        return told


Find = Callable[[Target], Awaitable[Any]]


async def through(
    exchange: Exchange,
    target: Target,
    find: Find,
    pipeline: Pipeline | None = None,
    *,
    instead_of: Pipeline | None = None,
) -> Any:
    """Return the answer of ``target``, or what its policy has instead. ``find`` returns a service as calls see it.

    ``pipeline``: what the call goes through, where that is known. ``instead_of``: what a call went through that failed, and
    whose policy names ``target`` as its fallback. Raises what the library raises for a single attempt, RetriesExhausted for
    several, and what refuses the call.
    """
    if pipeline is None:
        callee, method = await find(target), exchange.method
        pipeline = callee.pipelines.get(method) or callee.pipeline(method, *exchange.facts())
    answer = failure = None
    try:
        call = exchange.begin(pipeline)
        if pipeline.plain:
            # The short way, as that of guards: what is rarely needed costs a call nothing.
            try:
                answer = await exchange.send(call)
            except BaseException as error:
                failure = error
            else:
                if exchange.judge(answer) is OK and instead_of is None:
                    pipeline.answered(call, pipeline.now())
                    exchange.answered(answer, call)
                    return answer
        elif pipeline.mirroring is not None and instead_of is None and exchange.repeatable:
            mirror(pipeline.mirroring, pipeline.crew, exchange, partial(_copy, exchange, target, find))
        if not exchange.repeatable:
            call.once = True
        answer = await run(pipeline, call, exchange, failure, answer)
    except MeshClosed:
        raise
    except Exception as error:
        told = exchange.told(error)
        if instead_of is None:
            instead = await _instead(exchange, pipeline, target, find, told)
            if instead is not None:
                return instead
        if told is error:
            raise
        raise told from error
    if instead_of is not None:
        instead_of.substituted(call, target.service)
    elif call.outcome is not None and call.outcome.failed:
        instead = await _instead(exchange, pipeline, target, find, call, answer)
        if instead is not None:
            return instead
    exchange.answered(answer, call)
    return answer


def _copy(exchange: Exchange, target: Target, find: Find, service: str) -> Work:
    """What sends a copy to another service, once, for nobody to read the answer."""
    twin = exchange.twin()

    async def send() -> None:
        callee = await find(Target(service, target.namespace))
        pipeline = callee.pipeline(twin.method, *twin.facts())
        call = twin.begin(pipeline)
        call.once = True
        answer = await run(pipeline, call, twin)
        try:
            await twin.discard(answer, call)
        finally:
            pipeline.over(call, pipeline.now())

    return send


async def _instead(
    exchange: Exchange, pipeline: Pipeline, target: Target, find: Find, failure: Exception | Call, answer: Any = None
) -> Any:
    """What the policy has to offer instead of a failure, or of an ``answer`` that is one; None: nothing."""
    fallbacks = pipeline.fallbacks
    if fallbacks is None:
        return None
    why: Reason = "failure"
    if isinstance(failure, Call):
        call = failure
    else:
        call = call_of(failure, pipeline)
        why = "timeout" if exchange.blame(failure) is TIMEOUT else reason(failure)
    # A body that is made while it is sent is spent as soon as it was.
    whole = exchange.repeatable or call.outcome is None or not call.outcome.sent
    found = fallbacks.instead(why, exchange.identity, pipeline.now(), elsewhere=whole)
    if found is None:
        return None
    if answer is not None:
        try:
            await exchange.discard(answer, call)
        finally:
            pipeline.over(call, pipeline.now())
    if found.source == "service":
        return await through(exchange, Target(found.value, target.namespace), find, instead_of=pipeline)
    pipeline.substituted(call, found.source, found.age)
    return exchange.restored(found.value, fallbacks.status, call)
