"""Copies of calls to another service, for nobody to read the answers: mirrored traffic.

A copy is sent beside the call and never slows it down or fails it: it has a time of its own, is not repeated, and is dropped
where there are too many already. It says of itself what it is, to those who serve it and to whom these call in turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Protocol

from trimtab.calling.context import clock, deadline, marks
from trimtab.core.calling.mirroring import Mirroring
from trimtab.core.crew import Crew

logger = logging.getLogger("trimtab")

# Seconds for a copy, where the policy of the service that gets it says nothing shorter.
TIMEOUT = 15.0


Work = Callable[[], Coroutine[Any, Any, object]]


class Beside(Protocol):
    """The part of a transport that this needs."""

    def aside(self, crew: Crew, work: Work, done: Callable[[], object], context: Context) -> None:
        """Do ``work`` beside calls, if there is room for it. ``done`` is called at the end in any case."""
        ...


def mirror(mirroring: Mirroring, crew: Crew, transport: Beside, prepare: Callable[[str], Work]) -> None:
    """Have a call copied, if it is one of those that are; none is that is made while a copy is served.

    ``prepare`` is given the service and returns what sends the copy there; whatever that raises is of no account.
    """
    if marks.get().mirrored or not mirroring.admits():
        return
    send = prepare(mirroring.service)

    async def work() -> None:
        try:
            await send()
        except Exception as error:
            logger.debug("a mirrored call failed: %s", error)

    context = copy_context()
    context.run(marks.set, marks.get()._replace(mirrored=True))
    context.run(deadline.set, clock.get().now() + TIMEOUT)
    transport.aside(crew, work, mirroring.ended, context)
