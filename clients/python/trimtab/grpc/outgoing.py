"""One call on its way out, and what all three ways to make one have in common: blocking, in the background, and awaited."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any

from trimtab.calling.context import deadline as inherited
from trimtab.calling.context import marks
from trimtab.calling.drive import block, words
from trimtab.core.calling.call import Call
from trimtab.core.calling.observed import Dispatch
from trimtab.core.calling.pipeline import MAX_UNSENT
from trimtab.core.endpoints import Tally
from trimtab.core.orca import LoadReport
from trimtab.discovery import Callee
from trimtab.grpc.feed import AsyncFeed, Drawn, Feed, feed
from trimtab.grpc.meaning import (
    CALLERS,
    Entries,
    Status,
    headers,
    load_of,
    outcome_of_status,
    with_headers,
    with_mark,
    with_priority,
)
from trimtab.grpc.method import Method
from trimtab.grpc.subchannels import SubChannels

_ALL = Drawn(touched=False, replayable=True)


class Outgoing:
    """A call with its arguments, which are those that gRPC's own methods take.

    ``how``: what of the endpoint's stub is called, when it is not the stub itself.
    """

    how = ""
    callee: Callee
    call: Call
    began = 0.0
    deadline: float | None = None  # its caller's, and that of the call being served; the policy's is in the call

    def __init__(
        self,
        subchannels: SubChannels[Any],
        method: Method,
        request: Any = None,
        timeout: float | None = None,
        metadata: Entries | None = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
        *,
        request_iterator: Any = None,
    ) -> None:
        self.subchannels = subchannels
        self.method = method
        self.request = request
        self.feed: Feed | AsyncFeed | None = None
        if method.takes_stream:
            self.feed = feed(request if request is not None else request_iterator)
        self.metadata = metadata
        self.credentials = credentials
        self.wait_for_ready = wait_for_ready
        self.compression = compression
        self.timeout = timeout
        # Now: further attempts are made in contexts that know nothing of the call being served.
        self.marks = marks.get()

    def begin(self, callee: Callee) -> Call:
        """Let it in. Raises what refuses it."""
        method = self.method
        pipeline = callee.pipelines.get(method.name) or method.pipeline(callee, self.metadata)
        now = pipeline.now()
        if not self.began:
            # Over when its caller says, and never later than the call that is being served.
            self.began, self.deadline = now, inherited.get()
            if self.timeout is not None and (self.deadline is None or now + self.timeout < self.deadline):
                self.deadline = now + self.timeout
        self.callee = callee
        self.call = call = pipeline.begin(
            now,
            method=method.name,
            deadline=self.deadline,
            headers=headers(self.metadata) if pipeline.keyed else None,
            lasting=method.lasting,
        )
        return call

    def sending(self) -> None:
        """An attempt is about to be made. To be said where the pipeline is observed."""
        self.call.pipeline.sending(self.call, Dispatch("grpc"))

    def races(self) -> bool:
        """Whether copies of it may be sent. Only where the policy says something of copies."""
        hedged = self.call.pipeline.hedged
        if hedged is None or self.method.kind != "unary_unary":
            return False
        # What a policy that says retry permits is to send what failed again, not to do everything twice.
        self.call.idempotent = self.method.harmless(self.metadata)
        return hedged.holds_for(self.call)

    def start(self, now: float, timeout: float | None) -> Any:
        """Begin an attempt, which gRPC ends after ``timeout`` seconds."""
        call, method, metadata = self.call, self.method, self.metadata
        assert call.endpoint is not None
        if priority := call.pipeline.priority or self.marks.priority:
            metadata = with_priority(metadata, priority)
        if self.marks.mirrored:
            metadata = with_mark(metadata)
        dispatch = call.dispatch
        if dispatch is not None and dispatch.headers:
            metadata = with_headers(metadata, dispatch.headers)
        # None: given up meanwhile by another thread, and cancelled as soon as it is under way.
        sub = self.subchannels.to(call.endpoint, call.tally or Tally(), self.callee, now)
        stub = sub.stubs.get(method)
        if stub is None:
            stub = self.subchannels.stub(sub, method)
        if self.how:
            stub = getattr(stub, self.how)
        inner = stub(
            self.request if self.feed is None else self.feed.view(),
            timeout=timeout,
            metadata=metadata,
            credentials=self.credentials,
            # Only where there is no other endpoint left to try.
            wait_for_ready=self.wait_for_ready and self._is_last(),
            compression=self.compression,
        )
        if dispatch is not None and dispatch.asks_load:
            dispatch.load = partial(load_told_by, inner[1] if self.how == "with_call" else inner)
        return inner

    def ended(self, status: Status, *, begun: bool = False, cancelled: bool = False) -> float | None:
        """The attempt ended badly. Returns the seconds to wait before the next one; None: there is none, the call is over.

        ``begun``: the caller was given a part of the answer. ``cancelled``: by the caller.
        """
        call = self.call
        pipeline = call.pipeline
        now = pipeline.now()
        drawn = self.feed.stop() if self.feed is not None else _ALL
        outcome = CALLERS if cancelled or drawn.broke else outcome_of_status(call, status)
        if call.dispatch is not None:
            call.dispatch.status = status.code.name
            if call.dispatch.asks_load:
                call.dispatch.load = partial(load_of, status.trailing)
        if begun:
            call.error = str(status)
            pipeline.over(call, now, broke=outcome.failed)
            return None
        if not drawn.replayable and not outcome.sent:
            outcome = outcome._replace(sent=True)
        # gRFC A6: who has received response headers is committed to them. Empty ones cannot be told from none.
        if status.initial or drawn.touched:
            call.once = True
        call.idempotent = self.method.repeatable(pipeline, self.metadata)
        delay = pipeline.failed(call, outcome, str(status), now)
        if delay is None:
            pipeline.over(call, now)
        return delay

    def mistaken(self, error: BaseException) -> None:
        """It could not even be sent, because of what its caller asked for; or its caller was interrupted."""
        call = self.call
        pipeline = call.pipeline
        now = pipeline.now()
        pipeline.failed(call, CALLERS, words(error), now)
        pipeline.over(call, now)
        error.__dict__["trimtab"] = call

    def _is_last(self) -> bool:
        """Whether a failed connection would be the end of the call."""
        call = self.call
        tried = {attempt.endpoint.id for attempt in call.attempts if attempt.endpoint is not None}
        return len(call.tried) + 1 >= MAX_UNSENT or not call.pipeline.balancer.has_others(tried)


def load_told_by(inner: Any) -> LoadReport | None:
    """What the callee of an attempt told of its load, when the attempt is over; None also before that."""
    if not inner.done():
        return None
    trailing = inner.trailing_metadata()
    # Nothing of this suspends.
    return load_of(block(trailing) if isinstance(trailing, Coroutine) else trailing)
