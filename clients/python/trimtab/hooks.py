"""Hooks: what a program may hear of its calls, and of what holds for them.

>>> class Slow(Hooks):
...     def call_ended(self, call, error):
...         if call.seconds > 1.0:
...             print(call)
>>> mesh = Mesh(hooks=[Slow()])
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from trimtab.core.calling.call import Call
from trimtab.core.calling.events import (
    CircuitChanged,
    EndpointEjected,
    EndpointReturned,
    EndpointsChanged,
    Event,
    PolicyApplied,
    PolicyRefused,
)
from trimtab.core.calling.observed import Dispatch
from trimtab.core.retrying.conditions import Outcome

__all__ = [
    "Call",
    "CircuitChanged",
    "Dispatch",
    "EndpointEjected",
    "EndpointReturned",
    "EndpointsChanged",
    "Event",
    "Hooks",
    "Outcome",
    "PolicyApplied",
    "PolicyRefused",
]

logger = logging.getLogger("trimtab")

# Events that wait to be told. A hook that hangs loses the oldest.
_EVENTS = 1024


class Hooks:
    """Override what is of interest; what is not overridden costs nothing. Install with ``Mesh(hooks=[...])``.

    The moments of calls are told on the thread, or the loop, that they happen on: return at once. A call that is over may
    be told of by another thread than the one it began on. ``happened`` is told by a thread of the mesh's own. An exception
    never reaches a call; it is logged once of its kind.

    ``call.notes`` is a dictionary to keep what belongs to a call from one moment to the next.
    """

    def call_started(self, call: Call) -> None:
        """A call was let in, or is about to be refused. Its method, deadline and policy are known."""

    def attempt_started(self, call: Call, dispatch: Dispatch) -> None:
        """An attempt is about to be sent to ``call.endpoint``; what is put in ``dispatch.headers`` goes with it.

        ``call.tried`` are the attempts before it. ``call.endpoint`` is None for a guarded function that takes none.
        """

    def attempt_ended(self, call: Call, dispatch: Dispatch, outcome: Outcome) -> None:
        """An attempt failed, or its answer came to its end, of a stream and a body, too.

        ``call.error`` says what a failure was; ``call.seconds`` is the time to the first of the answer.
        """

    def call_ended(self, call: Call, error: Exception | None) -> None:
        """The call is over, all its attempts included.

        ``error``: what kept it, or a further attempt of it, from being sent, as RateLimited or NoEndpoints; None for a call
        that was answered, which ``call.outcome`` tells of (None: well), or given up (``call.outcome.counted`` is False).
        """

    def fallback_served(self, call: Call) -> None:
        """A call failed, and its caller gets ``call.fallback`` instead: told after its end."""

    def happened(self, event: Event) -> None:
        """Something happened beside calls: a circuit changed, an endpoint was ejected, a policy applied, …"""


class Audience:
    """All hooks of a mesh as one listener. What they raise ends here. ``soon``: has a thread of its own ``tell`` them."""

    def __init__(self, hooks: Sequence[Hooks], soon: Callable[[Audience], None]) -> None:
        self._soon = soon
        self._failed: set[tuple[str, str, type[Exception]]] = set()
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self.call_started = self._all(hooks, "call_started")
        self.attempt_started = self._all(hooks, "attempt_started")
        self.attempt_ended = self._all(hooks, "attempt_ended")
        self.call_ended = self._all(hooks, "call_ended")
        self.fallback_served = self._all(hooks, "fallback_served")
        self._happened = self._all(hooks, "happened")

    def offer(self, event: Event) -> None:
        """Have an event told, soon. Never blocks."""
        self._events.append(event)
        self._soon(self)

    def tell(self) -> None:
        """Tell what was offered."""
        while self._events:
            self._happened(self._events.popleft())

    def _all(self, hooks: Sequence[Hooks], moment: str) -> Callable[..., None]:
        """What tells a moment to everybody who wants to know it."""
        wanted = [
            getattr(hook, moment) for hook in hooks if getattr(type(hook), moment, None) is not getattr(Hooks, moment)
        ]

        def tell(*told: Any) -> None:
            for hook in wanted:
                try:
                    hook(*told)
                except Exception as error:
                    # The program's own error: the call that it was told of goes on.
                    self._log(hook, moment, error)

        return tell

    def _log(self, hook: Callable[..., None], moment: str, error: Exception) -> None:
        owner = type(getattr(hook, "__self__", hook)).__qualname__
        kind = (owner, moment, type(error))
        if kind not in self._failed:
            self._failed.add(kind)
            logger.error(
                "hook.failed: %s.%s; further failures of this kind are not logged", owner, moment, exc_info=error
            )
