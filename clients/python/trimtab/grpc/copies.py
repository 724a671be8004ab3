"""Copies of unary calls: those that race, and those that are mirrored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message

from trimtab.calling.drive import Awaiting, Blocking, run
from trimtab.calling.mirror import Work, mirror
from trimtab.core.calling.call import Call
from trimtab.core.calling.observed import Dispatch
from trimtab.core.orca import LoadReport
from trimtab.core.retrying.conditions import OK, Outcome
from trimtab.discovery import Callee
from trimtab.grpc.meaning import CALLERS, Status, injected, outcome_of_status, status_of
from trimtab.grpc.outgoing import Outgoing, load_told_by


class CopyFailed(Exception):
    """A copy ended badly. Its call fails with ``status`` when that is the end of it."""

    def __init__(self, call: Call, status: Status) -> None:
        super().__init__(str(status))
        self.status = status
        self.outcome = outcome_of_status(call, status)
        if call.dispatch is not None:
            call.dispatch.status = status.code.name


class _Copies:
    """A call as a transport of ``calling.drive``. An answer is gRPC's own call, which is over then."""

    how = ""

    def __init__(self, out: Outgoing) -> None:
        self._out = out

    def judge(self, answer: Any) -> Outcome:
        """What failed was raised."""
        return OK

    def blame(self, error: BaseException) -> Outcome:
        """By its status."""
        return error.outcome if isinstance(error, CopyFailed) else CALLERS

    async def discard(self, answer: Any, call: Call) -> None:
        """A message needs no closing."""

    def dispatch(self, call: Call) -> Dispatch:
        """For hooks."""
        return Dispatch("grpc")

    def status(self, answer: Any) -> str:
        """What failed was raised."""
        return "OK"

    def load(self, answer: Any) -> LoadReport | None:
        """By the metadata behind it."""
        return load_told_by(answer)

    def elsewhere(self, find: Callable[[str], Awaitable[Callee]], service: str) -> Work:
        """What sends a copy to another service, once, for nobody to read the answer."""
        request = self._out.request
        if isinstance(request, Message):
            # Sent perhaps when its caller has its answer, and goes on to change the message.
            request = type(request)()
            request.CopyFrom(self._out.request)
        twin = self._twin(request)
        twin.marks = twin.marks._replace(mirrored=True)

        async def send() -> None:
            call = twin.begin(await find(service))
            call.once = True
            await run(call.pipeline, call, type(self)(twin))  # type: ignore[arg-type]
            call.pipeline.over(call, call.pipeline.now())

        return send

    def _single(self, call: Call) -> Outgoing:
        """One copy on its way out. Raises CopyFailed where the policy asks for that."""
        if call.abort is not None:
            raise CopyFailed(call, injected(call.abort))
        out = self._twin(self._out.request)
        out.how, out.callee, out.call = self.how, self._out.callee, call
        return out

    def _twin(self, request: Any) -> Outgoing:
        whole = self._out
        out = Outgoing(
            whole.subchannels,
            whole.method,
            request,
            None,
            whole.metadata,
            whole.credentials,
            whole.wait_for_ready,
            whole.compression,
        )
        out.marks = whole.marks
        return out


class BlockingCopies(Blocking, _Copies):
    """Copies of a blocking call: futures of gRPC, so that those that lose can be cancelled."""

    how = "future"

    def __init__(self, out: Outgoing) -> None:
        super().__init__(out)
        self._under_way: dict[Call, Any] = {}
        self._settled = False

    async def send(self, call: Call) -> Any:
        """Wait for the end of a copy. Raises CopyFailed."""
        out, now = self._single(call), call.pipeline.now()
        inner = self._under_way[call] = out.start(now, call.timeout(now))
        if self._settled:
            inner.cancel()
        code = inner.code()
        if code is not grpc.StatusCode.OK:
            raise CopyFailed(call, status_of(inner))
        return inner

    def abandon(self, call: Call) -> None:
        """Cancel a copy, or have it cancelled as soon as it is sent."""
        self._settled = True
        inner = self._under_way.get(call)
        if inner is not None:
            inner.cancel()


class AwaitedCopies(Awaiting, _Copies):
    """Copies of a call of asyncio. gRPC cancels a call with the task that awaits it."""

    async def send(self, call: Call) -> Any:
        """Wait for the end of a copy. Raises CopyFailed."""
        out, now = self._single(call), call.pipeline.now()
        inner = out.start(now, call.timeout(now))
        try:
            await inner
        except grpc.aio.AioRpcError as error:
            raise CopyFailed(call, status_of(error)) from error
        return inner


def mirror_blocking(out: Outgoing, find: Callable[[str], Callee]) -> None:
    """Have a call copied that does not belong to a loop. ``find`` may block: it is called where that does no harm."""
    pipeline, copies = out.call.pipeline, BlockingCopies(out)
    assert pipeline.mirroring is not None

    async def found(service: str) -> Callee:
        return find(service)

    mirror(pipeline.mirroring, pipeline.crew, copies, partial(copies.elsewhere, found))
