"""A simulated process that calls: the call path of the SDK, with a virtual clock instead of sockets and sleeping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from random import Random
from threading import RLock
from typing import NamedTuple

from trimtab.calling.crew import RealCrew
from trimtab.core.calling.call import Call
from trimtab.core.calling.parts import Surroundings
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.calling.rules import Caller, Release, Rules
from trimtab.core.calling.statistics import Statistics
from trimtab.core.endpoints import ServiceState
from trimtab.core.retrying.conditions import outcome_of
from trimtab.errors import NoEndpoints, TrimtabError
from trimtab.policy.model import ServicePolicy

from tests.sim.server import Server
from tests.sim.timeline import Timeline

SERVICE = "default/orders"


class Ending(NamedTuple):
    """What became of a call. ``began`` and ``seconds`` are its own, all attempts and waits included.

    ``refused``: the section of the policy that kept it from being sent.
    """

    method: str
    began: float
    seconds: float
    ok: bool
    refused: str


class Client:
    """One process under one policy. It knows of the servers what it sees of them, as the SDK does. ``endings``: all calls."""

    def __init__(
        self,
        timeline: Timeline,
        servers: Mapping[str, Server],
        state: ServiceState,
        policy: ServicePolicy,
        rng: Random,
    ) -> None:
        self.endings: list[Ending] = []
        self._timeline = timeline
        self._servers = servers
        state = replace(state, tallies={})  # what one process sees of its own calls, no other does
        surroundings = Surroundings(
            service=SERVICE,
            lock=RLock(),
            rng=rng,
            tallies=state.tallies,
            nobody=lambda: NoEndpoints("nobody is left"),
            statistics=Statistics(),
            clock=_Watch(timeline),
            crew=RealCrew(),
        )
        caller = Caller("simulation", "", "simulation", "p2c", lambda: None)
        self.rules = Rules(surroundings, caller, count(), state, timeline.now, service=Release(policy, 1))

    def call(self, method: str, work: float, patience: float, idempotent: bool) -> None:
        """Call the service. ``work``: what the call takes a server on average; ``patience``: when its caller gives up."""
        now = self._timeline.now
        pipeline = self.rules.by_method.get(method) or self.rules.pipeline(method, now)
        try:
            call = pipeline.begin(now, method=method, deadline=now + patience, idempotent=idempotent)
        except TrimtabError as error:
            self._end(error.__dict__["trimtab"], ok=False)
        else:
            self._send(pipeline, call, work)

    def _send(self, pipeline: Pipeline, call: Call, work: float) -> None:
        timeline, endpoint = self._timeline, call.endpoint
        seconds = call.timeout(timeline.now)
        assert endpoint is not None and seconds is not None, "a call has an endpoint, and a caller gives up some time"
        attempt = _Attempt(work, timeline.now + seconds, partial(self._ended, pipeline, call, work))
        timeline.after(seconds, attempt.answer, "timeout")
        self._servers[endpoint.id].take(attempt)

    def _ended(self, pipeline: Pipeline, call: Call, work: float, condition: str) -> None:
        """What the driver of a real call does with an answer, a failure or a timeout."""
        now = self._timeline.now
        if condition == "OK":
            pipeline.answered(call, now, True)
            self._end(call, ok=True)
            return
        delay = pipeline.failed(call, outcome_of(condition), condition, now)
        if delay is None:
            pipeline.over(call, now)
            self._end(call, ok=False)
        else:
            self._timeline.after(delay, self._again, pipeline, call, work)

    def _again(self, pipeline: Pipeline, call: Call, work: float) -> None:
        now = self._timeline.now
        try:
            pipeline.again(call, now)
        except TrimtabError:
            pipeline.over(call, now)
            self._end(call, ok=False)
        else:
            self._send(pipeline, call, work)

    def _end(self, call: Call, *, ok: bool) -> None:
        self.endings.append(Ending(call.method, call.began, self._timeline.now - call.began, ok, call.refused))


class _Watch:
    """Only tells the time: whoever waits here has an event on the timeline."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def now(self) -> float:
        return self._timeline.now


class _Attempt:
    """One request on its way, as its client sees it: what comes first, an answer or the timeout, is what became of it."""

    __slots__ = ("_ended", "_over", "deadline", "work")

    def __init__(self, work: float, deadline: float, ended: Callable[[str], None]) -> None:
        self.work = work
        self.deadline = deadline
        self._ended = ended
        self._over = False

    def answer(self, condition: str) -> None:
        """``OK``, an HTTP status, or ``timeout``."""
        if not self._over:
            self._over = True
            self._ended(condition)
