"""The driver of a call whose copies race: hedging, for blocking and for asynchronous callers.

As in ``drive`` everything is decided elsewhere, by the ``Copies`` of the call. Copies run in lanes beside each other, while the
driver waits for the first that settles the call or for the time of the next copy. What is still under way then is cancelled, or
abandoned where a library knows no way to end a request: whatever comes of it later is counted and thrown away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, NamedTuple

from trimtab.calling.drive import Transport, send_observed, words
from trimtab.core.calling.call import Call
from trimtab.core.calling.hedged import Copies, Hedged
from trimtab.core.retrying.conditions import OK


class _Finished(NamedTuple):
    """What a copy came to."""

    copy: Call
    answer: Any
    failure: BaseException | None


async def race(hedged: Hedged, call: Call, transport: Transport) -> Any:
    """Return the answer that the caller gets, good or bad. The call is not ``over``: its body may still be read.

    Raises what the copy raised that settled the call; then the call is over.
    """
    pipeline = call.pipeline
    now = pipeline.now
    try:
        if call.wait:
            await transport.sleep(pipeline.clock, call.wait)
            pipeline.go_on(call, now())
        return await _Race(hedged, call, transport).run()
    except BaseException as error:
        error.__dict__["trimtab"] = call
        pipeline.over(call, now())
        raise


class _Race:
    def __init__(self, hedged: Hedged, call: Call, transport: Transport) -> None:
        pipeline = call.pipeline
        self._pipeline = pipeline
        self._observed = pipeline.observed
        self._clock = pipeline.clock
        self._now = pipeline.now
        self._transport = transport
        self._lanes = transport.lanes(pipeline.crew)
        self._copies: Copies = hedged.copies(call, pipeline.now())
        # What has ended and nobody has looked at. Emptied by the driver, and after the race by whoever adds to it, too.
        self._finished: deque[_Finished] = deque()
        self._kept: _Finished | None = None
        self._riding: set[Call] = set()  # also those that have not begun to
        self._begun: set[Call] = set()
        self._over = False

    async def run(self) -> Any:
        """The answer. Raises the failure."""
        try:
            finished = await self._settled()
            await self._end()
        except BaseException as error:
            self._copies.cancelled(words(error), self._now())
            await self._end()
            await self._keep(None)
            await self._lanes.join()
            raise
        if finished.failure is not None:
            await self._lanes.join()
            raise finished.failure
        return finished.answer

    async def _settled(self) -> _Finished:
        """What the call comes to."""
        copies, lanes, now = self._copies, self._lanes, self._now
        await self._send(copies.first)
        while True:
            if self._finished:
                finished = self._finished.popleft()
                settles = self._judge(finished)
                await self._keep(finished)
                if settles:
                    return finished
            elif (due := copies.due) is not None and due <= now():
                if copies.under_way and not lanes.free:
                    copies.enough()
                elif (copy := copies.another(now())) is not None:
                    await self._send(copy)
            elif self._kept is not None and copies.over:
                copies.exhausted(now())
                return self._kept
            else:
                if copies.under_way:
                    # One of these will have the last word.
                    await self._keep(None)
                await lanes.wait(self._clock, due)

    async def _keep(self, finished: _Finished | None) -> None:
        """Hold what may be the last word, in place of what was before."""
        kept, self._kept = self._kept, finished
        if kept is not None:
            await self._discard(kept)

    def _judge(self, finished: _Finished) -> bool:
        """Tell what a copy came to. Returns whether that settles the call."""
        copy, answer, failure = finished
        if failure is not None:
            outcome, told = self._transport.blame(failure), words(failure)
        else:
            outcome = self._transport.judge(answer)
            told = "" if outcome is OK else outcome.condition
        if outcome.failed:
            self._copies.failed(copy, outcome, told, self._now())
        else:
            self._copies.answered(copy, outcome, told, self._now())
        return not outcome.failed

    async def _send(self, copy: Call) -> None:
        self._riding.add(copy)
        if not self._lanes.start(copy, self._ride, self._missed):
            # Nobody else can: then the caller itself, who has nothing else to wait for.
            await self._ride(copy)

    async def _ride(self, copy: Call) -> None:
        """One copy, to its end."""
        self._begun.add(copy)
        answer, failure = None, None
        try:
            if self._over:
                raise asyncio.CancelledError
            answer = await self._send_one(self._transport.twin(), copy)
        except BaseException as error:
            failure = error
        if self._observed:
            self._told_of(copy, answer, failure)
        self._riding.discard(copy)
        self._finished.append(_Finished(copy, answer, failure))
        if self._over:
            await self._clear()
        else:
            self._lanes.arrived()

    def _missed(self, copy: Call) -> None:
        """A lane is done with a copy. One whose task was cancelled at once never rode."""
        if copy in self._begun:
            return
        self._riding.discard(copy)
        missed = _Finished(copy, None, asyncio.CancelledError())
        if self._over:
            self._lose(missed)
        else:
            self._finished.append(missed)
            self._lanes.arrived()

    async def _end(self) -> None:
        """Give up what is still under way."""
        self._over = True
        self._lanes.stop(tuple(self._riding))
        await self._clear()

    async def _clear(self) -> None:
        """Count, and throw away, what came too late."""
        while True:
            try:
                finished = self._finished.popleft()
            except IndexError:
                return
            self._lose(finished)
            await self._discard(finished)

    def _lose(self, finished: _Finished) -> None:
        copy, answer, failure = finished
        outcome = self._transport.blame(failure) if failure is not None else self._transport.judge(answer)
        self._copies.lost(copy, outcome, self._now())

    async def _discard(self, finished: _Finished) -> None:
        copy, answer, failure = finished
        if failure is None:
            if self._observed:
                self._pipeline.attempt_over(copy, self._transport.judge(answer))
            await self._transport.discard(answer, copy)

    async def _send_one(self, transport: Transport, copy: Call) -> Any:
        return await (send_observed(transport, copy) if self._observed else transport.send(copy))

    def _told_of(self, copy: Call, answer: Any, failure: BaseException | None) -> None:
        """An attempt without an answer to be read is over, in the context that it began in."""
        if failure is not None:
            copy.error = words(failure)
            self._pipeline.attempt_over(copy, self._transport.blame(failure))
        elif copy.dispatch is not None and copy.dispatch.scoped:
            self._pipeline.attempt_over(copy, self._transport.judge(answer))
