"""Hooks that write down what they hear."""

from __future__ import annotations

from typing import Any

from trimtab.hooks import Call, Dispatch, Event, Hooks, Outcome


class Heard(Hooks):
    """Every moment of calls in the order of their telling, in words, and the events beside them."""

    def __init__(self, **headers: str) -> None:
        self.moments: list[str] = []
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.errors: list[Exception | None] = []
        self._headers = headers

    def call_started(self, call: Call) -> None:
        self.calls.append(call)
        self.moments.append(f"call {call.method}".rstrip())

    def attempt_started(self, call: Call, dispatch: Dispatch) -> None:
        dispatch.headers.update(self._headers)
        where = call.endpoint.id if call.endpoint is not None else "nobody"
        self.moments.append(f"{dispatch.protocol or 'attempt'} to {where}")

    def attempt_ended(self, call: Call, dispatch: Dispatch, outcome: Outcome) -> None:
        self.moments.append(f"came to {dispatch.status} {outcome.condition}".replace("  ", " "))

    def call_ended(self, call: Call, error: Exception | None) -> None:
        self.errors.append(error)
        self.moments.append("over" if error is None else f"refused: {type(error).__name__}")

    def fallback_served(self, call: Call) -> None:
        self.moments.append(f"fallback {call.fallback}")

    def happened(self, event: Event) -> None:
        self.events.append(event)

    def told(self, kind: type[Any]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]
