"""A modelled instance of a service: a few workers and a queue, first in, first out."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Protocol

from trimtab.core.limiting.adaptive import build_bulkhead
from trimtab.core.limiting.shedding import ADMITTED, Admission, Priority, Queued, Ticket
from trimtab.policy.sections import Server as Settings

from tests.sim.timeline import Timeline

WORKERS = 4
REFUSAL = 0.001  # seconds that it takes to say no


class Request(Protocol):
    """What a server works on. ``work``: seconds that it takes on average; ``deadline``: when its caller gives up."""

    work: float
    deadline: float

    def answer(self, condition: str) -> None:
        """``OK``, or how it failed."""
        ...


class Server:
    """Serves ``workers`` requests at a time, each for an exponential time of the request's mean times ``slowness``.

    As most servers do, it knows nothing of callers that have given up: what is in its queue is worked off. ``settings``: the
    load shedding of a policy, in front of it. The workers may be changed while it runs.
    """

    def __init__(self, timeline: Timeline, rng: Random, settings: Settings | None = None) -> None:
        self.workers = WORKERS
        self.slowness = 1.0
        self.failing = 0.0  # share of requests that fail at once
        self.down = False
        self.taken = 0  # requests that came in
        self._timeline = timeline
        self._rng = rng
        self._busy = 0
        self._queue: deque[tuple[Request, float]] = deque()
        self._waiting: dict[Ticket, Request] = {}
        self._admission = None
        if (
            settings is not None
            and (bulkhead := build_bulkhead(settings.concurrency, settings.adaptive, rng)) is not None
        ):
            self._admission = Admission(settings, bulkhead)

    def take(self, request: Request) -> None:
        """A request comes in."""
        self.taken += 1
        timeline, admission = self._timeline, self._admission
        if self.down:
            timeline.after(REFUSAL, request.answer, "connect-failure")
        elif self.failing and self._rng.random() < self.failing:
            timeline.after(REFUSAL, request.answer, "503")
        elif admission is None:
            self._enqueue(request)
        else:
            verdict = admission.arrive(timeline.now, Priority.NORMAL, request.deadline)
            if verdict is ADMITTED:
                self._enqueue(request)
            elif isinstance(verdict, Queued):
                self._waiting[verdict.ticket] = request
                timeline.after(verdict.ticket.until - timeline.now, self._expire)
            else:
                timeline.after(REFUSAL, request.answer, "503")

    def resize(self, workers: int) -> None:
        """Go on with so many workers. Those that are too many finish what they do."""
        self.workers = workers
        self._work()

    def _enqueue(self, request: Request) -> None:
        self._queue.append((request, self._timeline.now))
        self._work()

    def _work(self) -> None:
        while self._queue and self._busy < self.workers:
            request, came = self._queue.popleft()
            self._busy += 1
            self._timeline.after(self._rng.expovariate(1.0 / request.work) * self.slowness, self._done, request, came)

    def _done(self, request: Request, came: float) -> None:
        self._busy -= 1
        request.answer("OK")
        if self._admission is not None:
            now = self._timeline.now
            for ticket in self._admission.leave(now, now - came):
                self._enqueue(self._waiting.pop(ticket))
        self._work()

    def _expire(self) -> None:
        assert self._admission is not None
        for ticket in self._admission.expire(self._timeline.now):
            self._timeline.after(REFUSAL, self._waiting.pop(ticket).answer, "503")
