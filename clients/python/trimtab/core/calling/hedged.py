"""Calls of which several copies may race: what hedging adds to a pipeline.

Source: gRFC A6, hedging policy. Its rules of when there is another copy are ``core.retrying.hedging``; here each copy gets an
endpoint of its own, and what became of it is counted there.
"""

from __future__ import annotations

from trimtab.core.calling.call import Attempt, Call
from trimtab.core.calling.pipeline import MAX_UNSENT
from trimtab.core.retrying.conditions import CANCELLED, OK, Outcome
from trimtab.core.retrying.hedging import Hedging
from trimtab.errors import TrimtabError
from trimtab.policy.sections import Hedge


class Hedged:
    """What a ``hedge`` section makes of the calls of a pipeline. Where it holds for a call, ``retry`` does not."""

    __slots__ = ("_settings",)

    def __init__(self, settings: Hedge) -> None:
        self._settings = settings

    def holds_for(self, call: Call) -> bool:
        """Whether copies of a call may be sent: only where that does no harm."""
        return (call.idempotent or self._settings.when == "always") and not call.once and not call.local

    def copies(self, call: Call, now: float) -> Copies:
        """The copies of a call that has begun, of which the first is to be sent now."""
        return Copies(self._settings, call, now)


class Copies:
    """The copies of one call, each a Call of its own, until it is settled what the call comes to.

    The first one has the endpoint that the call was given when it began. Every copy ends with ``answered``, ``failed`` or, when
    another one settled it, ``lost``. A call is settled once: it is then told, and held, as if the copy that settled it were the
    only one, the others being its earlier attempts.
    """

    def __init__(self, settings: Hedge, whole: Call, now: float) -> None:
        self._pipeline = whole.pipeline
        self._whole = whole
        self._delay = settings.delay
        self._hedging = Hedging(settings, now)
        self._unsent = False  # the newest failure was no attempt: it is made up for at once, out of turn
        self._settled = False
        self.first = _copy_of(whole)
        _hand_over(whole, self.first)
        # Who gives the call up before it is settled learns nothing from it.
        whole.outcome = CANCELLED
        self._sent = [self.first]
        self.under_way = {self.first}  # those without an answer
        self._last = self.first  # of those that failed
        self._last_tally = self.first.tally

    @property
    def due(self) -> float | None:
        """When the next copy is to be sent; None: there will be none, unless one fails."""
        due, deadline = self._hedging.due, self._whole.deadline
        if self._unsent:
            return self._whole.began
        return None if due is None or (deadline is not None and due >= deadline) else due

    @property
    def over(self) -> bool:
        """All have failed, and there will be no further one."""
        return not self.under_way and self.due is None

    def another(self, now: float) -> Call | None:
        """A further copy when it is ``due``, for an endpoint that had none; None: there will be no further one."""
        pipeline, hedging, budget = self._pipeline, self._hedging, self._pipeline._budget
        assert budget is not None, "copies are taken from a budget"
        with pipeline._lock:
            copy = _copy_of(self._whole)
            copy.start(now)
            if self._unsent:
                self._unsent = False
                hedging.under_way += 1
            elif hedging.take(now, budget):
                copy.borrowed = True
            else:
                return None
            try:
                pipeline._choose(copy, now, exclude=self._endpoints())
            except TrimtabError:
                # Nobody else is there, or may be asked: that is no failure of the call.
                pipeline._end(copy, now)
                hedging.under_way -= 1
                hedging.due = None
                return None
            pipeline.statistics.extra += 1
            self._sent.append(copy)
            self.under_way.add(copy)
            return copy

    def enough(self) -> None:
        """Send no further ones."""
        self._unsent = False
        self._hedging.due = None

    def answered(self, copy: Call, outcome: Outcome, error: str, now: float) -> None:
        """A copy came to what no other can better: an answer, good or not the callee's fault, or a failure of the caller's own.

        That settles the call. Those still under way are to be given up.
        """
        first = self.first
        with self._pipeline._lock:
            if copy.borrowed and not first.borrowed and first in self.under_way:
                # Of the attempts of a call one counts as the first: the one that has an outcome, and not the one given up.
                copy.borrowed, first.borrowed = False, True
            self._learn(copy, outcome, error, now)
            self._settle(copy, now)

    def failed(self, copy: Call, outcome: Outcome, error: str, now: float) -> None:
        """A copy failed by its callee's fault, which may make another one due."""
        pipeline, hedging = self._pipeline, self._hedging
        with pipeline._lock:
            self._learn(copy, outcome, error, now)
            self._last, self._last_tally = copy, copy.tally
            pipeline._end(copy, now)
            self.under_way.discard(copy)
            deadline = self._whole.deadline
            if not outcome.sent and len(self._sent) < MAX_UNSENT and (deadline is None or now < deadline):
                self._unsent = True
                hedging.under_way -= 1
            else:
                hedging.failed(now, pushback=outcome.pushback)
            # Nobody waits for the time of a copy that nobody is left to get.
            if self.due is not None and not pipeline.balancer.has_others(self._endpoints()):
                self.enough()

    def exhausted(self, now: float) -> None:
        """All are over: what the last one failed with is what the call comes to.

        It is in flight again, as long as its caller reads the answer that was one.
        """
        with self._pipeline._lock:
            self._settle(self._last, now)
            tally = self._whole.tally = self._last_tally
            if tally is not None:
                tally.in_flight += 1

    def cancelled(self, error: str, now: float) -> None:
        """The caller gave the call up, unless it is settled."""
        with self._pipeline._lock:
            if self._settled:
                return
            copy = next((each for each in self._sent if each in self.under_way), self._last)
            if copy in self.under_way:
                self._learn(copy, CANCELLED, error, now)
            self._settle(copy, now)

    def lost(self, copy: Call, outcome: Outcome, now: float) -> None:
        """A copy that was given up is over, with ``outcome`` when it had one all the same. Saying it twice is saying it once."""
        pipeline = self._pipeline
        with pipeline._lock:
            if copy not in self.under_way:
                return
            self.under_way.discard(copy)
            self._learn(copy, outcome, "", now)
            if not outcome.counted:
                tally, waited = copy.tally, copy.seconds
                # Nobody knows how long it would have taken: at least so long. Else an endpoint that is always too slow to
                # win would never be known as slow.
                if tally is not None and waited >= self._delay and waited > tally.cost:
                    tally.cost, tally.cost_at = waited, now
            pipeline._end(copy, now)

    # Inside

    def _learn(self, copy: Call, outcome: Outcome, error: str, now: float) -> None:
        copy.outcome, copy.error = None if outcome is OK else outcome, error
        self._pipeline._learn(copy, outcome, now)

    def _settle(self, copy: Call, now: float) -> None:
        whole, statistics = self._whole, self._pipeline.statistics
        self._settled = True
        self.under_way.discard(copy)
        for each in self.under_way:
            each.error, each.seconds = "cancelled", now - each.sent_at
        whole.tried = tuple(Attempt(each.endpoint, each.error, each.seconds) for each in self._sent if each is not copy)
        _hand_over(copy, whole)
        statistics.ended(whole.outcome or OK, now - whole.began)

    def _endpoints(self) -> set[str]:
        return {copy.endpoint.id for copy in self._sent if copy.endpoint is not None}


def _copy_of(whole: Call) -> Call:
    """The same call, without an attempt."""
    copy = Call.unsent(whole.pipeline, whole.began)
    copy.method, copy.deadline, copy.idempotent, copy.key = whole.method, whole.deadline, whole.idempotent, whole.key
    if whole.notes is not None:
        copy.notes = whole.notes
    return copy


def _hand_over(giver: Call, taker: Call) -> None:
    """Have another call hold what one holds of its attempt."""
    taker.endpoint, taker.seconds = giver.endpoint, giver.seconds
    taker.sent_at, taker.until = giver.sent_at, giver.until
    taker.abort, taker.outcome, taker.error = giver.abort, giver.outcome, giver.error
    taker.tally, giver.tally = giver.tally, None
    taker.borrowed, giver.borrowed = giver.borrowed, False
    taker.circuit, giver.circuit = giver.circuit, None
    if giver.dispatch is not None and not giver.dispatch.scoped:
        taker.dispatch, giver.dispatch = giver.dispatch, None
    if taker.circuit is not None:
        taker.permit = giver.permit
