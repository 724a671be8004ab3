"""``mesh.pick``: an endpoint for one attempt of the caller's own."""

from __future__ import annotations

from types import TracebackType

from trimtab.calling.drive import Awaiting, Blocking, words
from trimtab.calling.guard import blame
from trimtab.calling.heed import without
from trimtab.core.calling.call import Call
from trimtab.core.calling.observed import Dispatch
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.endpoints import Endpoint
from trimtab.core.retrying.conditions import OK, Outcome
from trimtab.errors import FaultInjected

_FAILED = Outcome("exception")


class Pick:
    """An endpoint chosen for one call. Say ``done`` when the call is over, or use it as a context manager.

    As a context it judges by what comes out of it, as a guarded function is judged: a cancellation says nothing of the endpoint.
    """

    __slots__ = ("_pipeline", "call", "endpoint")

    def __init__(self, pipeline: Pipeline, call: Call) -> None:
        assert call.endpoint is not None
        self.call = call
        self.endpoint: Endpoint = call.endpoint
        self._pipeline: Pipeline | None = pipeline
        if pipeline.observed:
            pipeline.sending(call, Dispatch())

    def done(self, ok: bool = True) -> None:
        """Count the call as over. ``ok``: the endpoint answered as it should. Saying it twice is saying it once."""
        if ok:
            self._end(OK, "")
        else:
            self._end(_FAILED, "failed")

    def _end(self, outcome: Outcome, told: str) -> None:
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is None:
            return
        now = pipeline.now()
        if outcome is OK:
            pipeline.answered(self.call, now, True)
        else:
            pipeline.failed(self.call, outcome, told, now, last=True)
            pipeline.over(self.call, now)

    def __enter__(self) -> Pick:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.done()
        else:
            self._end(blame(error, ()), words(error))

    def __repr__(self) -> str:
        return f"<Pick {self.endpoint.id} {self.endpoint.target}>"


async def picked(pipeline: Pipeline, call: Call, waiting: Blocking | Awaiting) -> Pick:
    """The endpoint of a call that has begun, when it is the call's turn. Raises FaultInjected where the policy asks for that."""
    if not pipeline.plain:
        without(pipeline, "mesh.pick", ("hedge", "mirror", "fallback"))
    if call.wait:
        try:
            await waiting.sleep(pipeline.clock, call.wait)
        except BaseException:
            pipeline.over(call, pipeline.now())
            raise
        pipeline.go_on(call, pipeline.now())
    pick = Pick(pipeline, call)
    if call.abort is not None:
        error = FaultInjected(call.abort.condition)
        error.__dict__["trimtab"] = call
        pick._end(call.abort, words(error))
        raise error
    return pick
