"""A pipeline with listeners. Rules compose it only where there are any, so that a call without them pays nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from trimtab.core.calling.call import Call
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.orca import LoadReport
from trimtab.core.retrying.conditions import CANCELLED, OK, Outcome

# An answer that began well and came to no good end.
_BROKE = Outcome("reset")
_ENDED: Any = object()
_OPEN = "trimtab.open"  # in a call's notes until it has ended: the error that kept a further attempt from being sent


@dataclass(slots=True)
class Dispatch:
    """An attempt on its way out.

    ``protocol`` is "http" or "grpc", and empty where the program itself speaks to the endpoint (``mesh.guard``,
    ``mesh.attempts``, ``mesh.pick``). ``headers``, metadata in gRPC, are for hooks to fill: they are sent with the attempt,
    in place of the caller's own of the same name. ``scheme`` and ``path``, without the query, are those of an HTTP request.
    ``scoped``: the attempt begins and ends in one context, so what a hook makes current holds for what the program does
    inside. ``status``: what the callee said in the end, an HTTP status or the name of a gRPC code; empty as long as it did not.
    ``notes`` is for hooks, to keep what belongs to the attempt until it has ended. ``asks_load``: the callee is asked for a
    report of its load, which ``load`` reads when the attempt has ended.
    """

    protocol: str = ""
    scheme: str = ""
    path: str = ""
    scoped: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    status: str = ""
    notes: dict[Any, Any] = field(default_factory=dict)
    asks_load: bool = False
    load: Callable[[], LoadReport | None] | None = None


class Listener(Protocol):
    """Who is told of calls. Nothing may be raised, and nobody may block."""

    def call_started(self, call: Call) -> None:
        """A call was let in, or is about to be refused."""
        ...

    def attempt_started(self, call: Call, dispatch: Dispatch) -> None:
        """An attempt is about to be sent to ``call.endpoint``."""
        ...

    def attempt_ended(self, call: Call, dispatch: Dispatch, outcome: Outcome) -> None:
        """An attempt failed, or its answer was read to the end."""
        ...

    def call_ended(self, call: Call, error: Exception | None) -> None:
        """The call is over. ``error``: what kept it, or a further attempt of it, from being sent."""
        ...

    def fallback_served(self, call: Call) -> None:
        """The caller gets ``call.fallback`` instead of the callee's answer."""
        ...


class ObservedPipeline(Pipeline):
    """Tells its ``listener`` of every moment of its calls, on the caller's own thread and never with the lock held.

    Copies of a call are attempts of it, and may be under way at the same time.
    """

    def begin(
        self,
        now: float,
        method: str = "",
        deadline: float | None = None,
        idempotent: bool = True,
        local: bool = False,
        exclude: Collection[str] = (),
        headers: Mapping[str, str] | None = None,
        arguments: Mapping[str, Any] | None = None,
        lasting: bool = False,
    ) -> Call:
        """As Pipeline.begin does."""
        try:
            call = super().begin(now, method, deadline, idempotent, local, exclude, headers, arguments, lasting)
        except Exception as error:
            refused: Call = error.__dict__["trimtab"]
            refused.notes = {}
            self._listener.call_started(refused)
            self._listener.call_ended(refused, error)
            raise
        call.notes = {_OPEN: None}
        self._listener.call_started(call)
        return call

    def sending(self, call: Call, dispatch: Dispatch) -> None:
        """As Pipeline.sending says."""
        call.dispatch = dispatch
        self._listener.attempt_started(call, dispatch)

    def answered(self, call: Call, now: float, over: bool = False) -> None:
        """As Pipeline.answered does."""
        super().answered(call, now, over)
        if over:
            self._over(call, OK)

    def failed(self, call: Call, outcome: Outcome, error: str, now: float, last: bool = False) -> float | None:
        """As Pipeline.failed does. The last attempt is not over before its answer, if there is one, was read."""
        delay = super().failed(call, outcome, error, now, last)
        if delay is not None:
            self.attempt_over(call, outcome)
        return delay

    def again(self, call: Call, now: float) -> None:
        """As Pipeline.again does."""
        try:
            super().again(call, now)
        except Exception as error:
            if call.notes is not None:
                call.notes[_OPEN] = error
            raise

    def over(self, call: Call, now: float, *, broke: bool = False) -> None:
        """As Pipeline.over does."""
        super().over(call, now, broke=broke)
        # Of an answer that its caller did not want to the end, the attempt is cancelled; the call was answered.
        good = CANCELLED if call.error else OK
        self._over(call, call.outcome or (_BROKE if broke else good))

    def substituted(self, call: Call, source: str, age: float = 0.0) -> None:
        """As Pipeline.substituted does."""
        super().substituted(call, source, age)
        self._listener.fallback_served(call)

    def attempt_over(self, call: Call, outcome: Outcome) -> None:
        """As Pipeline.attempt_over says."""
        # Taken out, so that only one of several who say it is believed.
        with self._lock:
            dispatch, call.dispatch = call.dispatch, None
        if dispatch is not None:
            self._listener.attempt_ended(call, dispatch, outcome)

    def _over(self, call: Call, outcome: Outcome) -> None:
        self.attempt_over(call, outcome)
        error = call.notes.pop(_OPEN, _ENDED) if call.notes is not None else _ENDED
        if error is not _ENDED:
            self._listener.call_ended(call, error)
