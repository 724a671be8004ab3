"""What a call inherits from the call that is being served: its deadline, its priority, and whether it is a mirrored one.

Servers set it from what their caller sent, and guarded functions and the blocks of ``mesh.attempts`` have what is left for their
attempt; calls that are made meanwhile, also by tasks that are started, never outlive it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from trimtab.calling.clock import RealClock
from trimtab.core.clock import Clock

_REAL: Clock = RealClock()

# What deadlines are told by. Only a test has another one than the machine's.
clock: ContextVar[Clock] = ContextVar("trimtab.clock", default=_REAL)
# By that clock; None: without end.
deadline: ContextVar[float | None] = ContextVar("trimtab.deadline", default=None)


class Marks(NamedTuple):
    """What a call bears, and every call that is made for it.

    ``mirrored``: it is a copy, whose answer nobody reads; what it calls in turn is not copied once more.
    """

    priority: str = ""
    mirrored: bool = False


UNMARKED = Marks()
# Of the call that is being served: this very object where it bears none, which is quicker to ask for than for each.
marks: ContextVar[Marks] = ContextVar("trimtab.marks", default=UNMARKED)


def marked(priority: str, mirrored: bool) -> Marks:
    """The marks of a call."""
    return Marks(priority, mirrored) if priority or mirrored else UNMARKED


# Milliseconds that are left for the whole call, and its class, over HTTP; gRPC has a header of its own for the first.
TIMEOUT_HEADER = "trimtab-timeout-ms"
PRIORITY_HEADER = "trimtab-priority"
# On copies of calls, and on what is called while they are served; of any value.
MIRRORED_HEADER = "trimtab-mirrored"


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give all calls made inside at most ``seconds`` together, and no more than they have already."""
    until = clock.get().now() + seconds
    held = deadline.get()
    token = deadline.set(until if held is None else min(held, until))
    try:
        yield
    finally:
        deadline.reset(token)


def remaining() -> float | None:
    """Seconds that are left for what is being done here, below 0 when its time is over; None: it has no end.

    In a request that is served, what its caller gave it; in a guarded function, or a block of ``mesh.attempts``, what is left
    for the attempt; whichever ends first, ``within`` included.
    """
    until = deadline.get()
    return None if until is None else until - clock.get().now()
