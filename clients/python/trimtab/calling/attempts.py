"""``mesh.attempts``: retries in the caller's own words, for what no other shell fits.

>>> for attempt in mesh.attempts("orders", idempotent=True):
...     with attempt as endpoint:
...         answer = talk_to(endpoint.target)

The block runs once for each attempt that the policy allows; an exception that may be tried again is swallowed, any other, and
the last one, comes out of the loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from types import TracebackType

from trimtab.calling.context import deadline
from trimtab.calling.drive import words
from trimtab.calling.heed import without
from trimtab.calling.keyed import arguments_of
from trimtab.core.calling.call import Call
from trimtab.core.calling.observed import Dispatch
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.endpoints import Endpoint
from trimtab.core.retrying.conditions import Outcome
from trimtab.errors import FaultInjected

Begin = Callable[[], Call]
Blame = Callable[[BaseException], Outcome]


def beginning(pipeline: Pipeline, method: str, idempotent: bool, key: object) -> Begin:
    """What begins such a call, when its first attempt is asked for."""
    return lambda: pipeline.begin(
        pipeline.now(),
        method=method,
        deadline=deadline.get(),
        idempotent=idempotent,
        arguments=arguments_of(pipeline, key),
    )


class AttemptBlock:
    """One attempt: a context that is given the endpoint. ``call`` is the trace, ``timeout`` what the attempt may take."""

    def __init__(self, pipeline: Pipeline, call: Call, blame: Blame) -> None:
        self.call = call
        self.delay: float | None = None
        self.ended = False
        self._outer: float | None = None
        self._pipeline = pipeline
        self._blame = blame

    @property
    def timeout(self) -> float | None:
        """Seconds that this attempt may take; None: without end."""
        return self.call.timeout(self._pipeline.now())

    def __enter__(self) -> Endpoint:
        assert self.call.endpoint is not None
        if self._pipeline.observed:
            self._pipeline.sending(self.call, Dispatch(scoped=True))
        self._outer = deadline.get()
        deadline.set(self.call.until)
        return self.call.endpoint

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.ended = True
        deadline.set(self._outer)
        now = self._pipeline.now()
        if error is None:
            self._pipeline.answered(self.call, now, True)
            return False
        self.delay = self._pipeline.failed(self.call, self._blame(error), words(error), now)
        if self.delay is None:
            self._pipeline.over(self.call, now)
            error.__dict__["trimtab"] = self.call
            return False
        return True

    def abort(self, outcome: Outcome) -> None:
        """Have the attempt fail instead of being made, as the policy asks. Raises FaultInjected for the last one."""
        error = FaultInjected(outcome.condition)
        self.__enter__()
        if not self.__exit__(FaultInjected, error, None):
            raise error


def attempts(pipeline: Pipeline, begin: Begin, blame: Blame) -> Iterator[AttemptBlock]:
    """The attempts of a call, which begins with the first of them."""
    steps = _attempts(pipeline, begin, blame)
    try:
        for step in steps:
            if isinstance(step, float):
                pipeline.clock.sleep(step)
            else:
                yield step
    finally:
        steps.close()


async def attempts_async(pipeline: Pipeline, begin: Begin, blame: Blame) -> AsyncIterator[AttemptBlock]:
    """The same for asyncio, where the waits let others run."""
    steps = _attempts(pipeline, begin, blame)
    try:
        for step in steps:
            if isinstance(step, float):
                await pipeline.clock.pause(step)
            else:
                yield step
    finally:
        steps.close()


def _attempts(pipeline: Pipeline, begin: Begin, blame: Blame) -> Generator[AttemptBlock | float, None, None]:
    """Attempts, and between them the seconds to wait."""
    call = begin()
    try:
        if not pipeline.plain:
            without(pipeline, "mesh.attempts", ("hedge", "mirror", "fallback"))
        if call.wait:
            yield call.wait
            pipeline.go_on(call, pipeline.now())
        while True:
            block = AttemptBlock(pipeline, call, blame)
            if call.abort is not None:
                block.abort(call.abort)
            else:
                yield block
            if not block.ended:
                raise RuntimeError("use each attempt as a context: with attempt as endpoint: …")
            if block.delay is None:
                return
            if block.delay:
                yield block.delay
            pipeline.again(call, pipeline.now())
    finally:
        # Also left by break or return, or between two attempts: what the call held is given back.
        pipeline.over(call, pipeline.now())
