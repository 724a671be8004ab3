"""Callers that balance by load have their endpoints asked for it, and hear what these answer.

A listener like those of hooks, composed into the pipelines of such policies: calls under any other know nothing of it.
"""

from __future__ import annotations

from trimtab.core.balancing.loads import Loads
from trimtab.core.calling.call import Call
from trimtab.core.calling.observed import Dispatch, Listener
from trimtab.core.calling.parts import Lock
from trimtab.core.orca import FORMAT_HEADER, TEXT
from trimtab.core.retrying.conditions import Outcome


class LoadListener:
    """Hands the reports of endpoints to ``loads``, under the service's ``lock``. ``hooks``: who else is told of calls."""

    def __init__(self, loads: Loads, lock: Lock, hooks: Listener | None) -> None:
        self._loads = loads
        self._lock = lock
        self._hooks = hooks

    def call_started(self, call: Call) -> None:
        """For hooks."""
        if self._hooks is not None:
            self._hooks.call_started(call)

    def attempt_started(self, call: Call, dispatch: Dispatch) -> None:
        """Ask, if it is time."""
        endpoint = call.endpoint
        # Where the program itself speaks to the endpoint, without a protocol known here, its answer is not seen.
        if dispatch.protocol and endpoint is not None and self._loads.asks(endpoint.id, call.sent_at):
            dispatch.asks_load = True
            dispatch.headers[FORMAT_HEADER] = TEXT
        if self._hooks is not None:
            self._hooks.attempt_started(call, dispatch)

    def attempt_ended(self, call: Call, dispatch: Dispatch, outcome: Outcome) -> None:
        """Take what was answered."""
        report, endpoint = dispatch.load() if dispatch.load is not None else None, call.endpoint
        if report is not None and endpoint is not None:
            with self._lock:
                self._loads.report(endpoint.id, report, call.pipeline.now())
        if self._hooks is not None:
            self._hooks.attempt_ended(call, dispatch, outcome)

    def call_ended(self, call: Call, error: Exception | None) -> None:
        """For hooks."""
        if self._hooks is not None:
            self._hooks.call_ended(call, error)

    def fallback_served(self, call: Call) -> None:
        """For hooks."""
        if self._hooks is not None:
            self._hooks.fallback_served(call)
