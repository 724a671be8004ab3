"""``mesh.pick``: an endpoint for one attempt of the caller's own."""

from __future__ import annotations

from types import TracebackType

from trimtab.core.calling.call import Call
from trimtab.core.calling.observed import Dispatch
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.endpoints import Endpoint
from trimtab.core.retrying.conditions import Outcome

_FAILED = Outcome("exception")


class Pick:
    """An endpoint chosen for one call. Say ``done`` when the call is over, or use it as a context manager."""

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
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is None:
            return
        now = pipeline.now()
        if ok:
            pipeline.answered(self.call, now, True)
        else:
            # An attempt of the caller's own is the only one.
            self.call.once = True
            pipeline.failed(self.call, _FAILED, "failed", now)
            pipeline.over(self.call, now)

    def __enter__(self) -> Pick:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done(kind is None)

    def __repr__(self) -> str:
        return f"<Pick {self.endpoint.id} {self.endpoint.target}>"
