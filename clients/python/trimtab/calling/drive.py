"""The driver of a call: everything between its first attempt and its answer, for blocking and for asynchronous callers.

What is decided is decided by the pipeline, without a clock and without I/O. The driver asks the time, waits, and sends. It is
written once: a blocking caller's transport has coroutines that never suspend, and ``block`` runs them through at once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from trimtab.core.calling.call import Call
from trimtab.core.calling.observed import Dispatch
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.clock import Clock
from trimtab.core.crew import Crew
from trimtab.core.orca import LoadReport
from trimtab.core.retrying.conditions import OK, Outcome
from trimtab.errors import TrimtabError

if TYPE_CHECKING:
    from trimtab.calling.lanes import Lanes

T = TypeVar("T")


class Transport(Protocol):
    """One call by the means of one library."""

    async def send(self, call: Call) -> Any:
        """Send the request to ``call.endpoint``, until ``call.until``. Returns the answer; raises what the library raises."""
        ...

    def judge(self, answer: Any) -> Outcome:
        """What an answer means: ``OK``, or an outcome that counts as failed or may be worth another attempt."""
        ...

    def blame(self, error: BaseException) -> Outcome:
        """What an exception of ``send`` means."""
        ...

    async def discard(self, answer: Any, call: Call) -> None:
        """Nobody will read this answer to ``call``: another attempt is made, or has won."""
        ...

    def twin(self) -> Self:
        """What can send the same request at the same time."""
        ...

    def lanes(self, crew: Crew) -> Lanes:
        """Where copies of the request run beside each other."""
        ...

    def dispatch(self, call: Call) -> Dispatch:
        """What is sent to ``call.endpoint``, for hooks."""
        ...

    def status(self, answer: Any) -> str:
        """What an answer says, for hooks; empty: it says nothing."""
        ...

    def load(self, answer: Any) -> LoadReport | None:
        """What an answer tells of the callee's load, where it was asked for that."""
        ...

    async def sleep(self, clock: Clock, seconds: float) -> None:
        """Wait."""
        ...


class Blocking:
    """The part of a blocking transport that all have in common."""

    async def sleep(self, clock: Clock, seconds: float) -> None:
        """Hold the thread up."""
        clock.sleep(seconds)

    def twin(self) -> Self:
        """Itself, where nothing of it is of one attempt."""
        return self

    def lanes(self, crew: Crew) -> Lanes:
        """Threads."""
        from trimtab.calling.lanes import Threads

        return Threads(crew, self.abandon)

    def abandon(self, call: Call) -> None:
        """Nobody waits for the answer to ``call``: end it, where that can be done from another thread."""

    def aside(
        self, crew: Crew, work: Callable[[], Coroutine[Any, Any, object]], done: Callable[[], object], context: Context
    ) -> None:
        """Do ``work`` beside calls, on a thread if there is one. ``done`` is called at the end in any case."""

        def through() -> None:
            try:
                context.run(lambda: block(work()))
            finally:
                done()

        if not crew.start(through):
            done()


class Awaiting:
    """The part of an asynchronous transport that all have in common."""

    async def sleep(self, clock: Clock, seconds: float) -> None:
        """Let others run."""
        await clock.pause(seconds)

    def twin(self) -> Self:
        """Itself, where nothing of it is of one attempt."""
        return self

    def lanes(self, crew: Crew) -> Lanes:
        """Tasks."""
        from trimtab.calling.lanes import Tasks

        return Tasks(crew)

    def aside(
        self, crew: Crew, work: Callable[[], Coroutine[Any, Any, object]], done: Callable[[], object], context: Context
    ) -> None:
        """Do ``work`` beside calls, as a task. ``done`` is called at the end in any case."""
        crew.spawn(work(), done, context, awaited=False)


def block(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise RuntimeError("a blocking transport must not await")


async def run(
    pipeline: Pipeline, call: Call, transport: Transport, failure: BaseException | None = None, answer: Any = None
) -> Any:
    """Return the answer that the caller gets, good or bad. The call is not ``over``: its body may still be read.

    ``failure``, or ``answer``: of the first attempt, when it was made already. Raises what the last attempt raised, or what
    kept a further one from being made; then the call is over.
    """
    hedged = pipeline.hedged
    if hedged is not None and failure is None and hedged.holds_for(call):
        from trimtab.calling.race import race

        return await race(hedged, call, transport)
    now = pipeline.now
    send = partial(send_observed, transport) if pipeline.observed else transport.send
    try:
        made = failure is not None or answer is not None
        if call.wait and not made:
            await transport.sleep(pipeline.clock, call.wait)
            pipeline.go_on(call, now())
        while True:
            if not made:
                try:
                    answer = await send(call)
                except BaseException as error:
                    failure = error
            if failure is not None:
                outcome, told = transport.blame(failure), words(failure)
            else:
                outcome = transport.judge(answer)
                if outcome is OK:
                    pipeline.answered(call, now())
                    return answer
                told = outcome.condition
            delay = pipeline.failed(call, outcome, told, now())
            if delay is None:
                if failure is not None:
                    raise failure
                return answer
            if answer is not None:
                await transport.discard(answer, call)
            if delay:
                await transport.sleep(pipeline.clock, delay)
            try:
                pipeline.again(call, now())
            except TrimtabError as error:
                raise error from failure
            answer = failure = None
            made = False
    except BaseException as error:
        error.__dict__["trimtab"] = call
        # Also interrupted or cancelled while it waited: what it held is given back in any case.
        pipeline.over(call, now())
        raise


async def send_observed(transport: Transport, call: Call) -> Any:
    """Send, where somebody listens."""
    dispatch = transport.dispatch(call)
    call.pipeline.sending(call, dispatch)
    answer = await transport.send(call)
    dispatch.status = transport.status(answer)
    if dispatch.asks_load:
        dispatch.load = partial(transport.load, answer)
    return answer


def call_of(error: BaseException, pipeline: Pipeline) -> Call:
    """The trace of the call that failed with ``error``; an empty one when it failed before it was a call."""
    found = error.__dict__.get("trimtab")
    if isinstance(found, Call):
        return found
    return Call.unsent(pipeline, pipeline.now())


def words(error: BaseException) -> str:
    """An exception for people."""
    return str(error) or type(error).__name__
