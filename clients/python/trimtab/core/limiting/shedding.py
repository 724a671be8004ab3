"""Load shedding: which calls a server takes on, which wait for a place, and which it refuses before they cost anything.

Sources: Google, *Site Reliability Engineering*, chapters 21 and 22 (criticality, short queues, refusing early).

A queue is first in, first out within a priority. Last in, first out (Facebook's adaptive LIFO, with CoDel for the wait) serves
those who have not given up yet when the queue is long; here nobody waits longer than the policy's ``wait``, a fraction of
what callers have patience for, so the first in line is still there, and nobody is starved by those who come later.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum, IntEnum
from heapq import heapify, heappop, heappush
from math import inf
from typing import Literal, NamedTuple

from trimtab.core.limiting.bulkhead import Bulkhead
from trimtab.policy.sections import Server

# What a refused caller is told: an estimate, and never so little that all come back at once, nor so much that none does.
RETRY_LEAST, RETRY_MOST = 0.05, 30.0
RETRY_UNKNOWN = 1.0
# The share of a new time in the mean of what calls take.
SMOOTHING = 0.1


class Priority(IntEnum):
    """How important a call is. The names are those of the policy, in capitals."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3


class Reason(Enum):
    """Why a call was not taken on."""

    LATE = "its deadline was over before it could begin"
    FULL = "as many calls as the server can take are waiting already"


class Ticket:
    """A call that waits. Unless it is started, displaced or abandoned, it is expired at ``until``."""

    __slots__ = ("priority", "until")

    def __init__(self, priority: Priority, until: float) -> None:
        self.priority = priority
        self.until = until


class Admitted(Enum):
    """The call has a place, which it must ``leave``."""

    ADMITTED = "admitted"


ADMITTED: Literal[Admitted.ADMITTED] = Admitted.ADMITTED


class Queued(NamedTuple):
    """The call waits. ``displaced``: the less important one that lost its place in the queue, and is to be refused."""

    ticket: Ticket
    displaced: Ticket | None


class Shed(NamedTuple):
    """The call is refused; it may be worth trying again after ``retry_after`` seconds."""

    retry_after: float
    reason: Reason


class Admission:
    """Calls that come in: each gets a place of ``bulkhead``, or waits in a bounded queue, or is refused.

    Every ticket is answered exactly once: by ``leave`` or ``start`` (it has a place now), by ``expire``, as ``displaced``,
    or by its own ``abandon``. Whoever waits with a ticket MUST call ``expire`` at its ``until``. Times in seconds of one clock.
    """

    __slots__ = ("_expired", "_mean", "_order", "_queues", "_room", "_timers", "_wait", "bulkhead", "waiting")

    def __init__(self, settings: Server, bulkhead: Bulkhead) -> None:
        self.bulkhead = bulkhead
        self._wait = settings.wait
        self._room = settings.queue if settings.wait > 0.0 else 0
        self.waiting = 0
        self._queues: tuple[OrderedDict[Ticket, None], ...] = tuple(OrderedDict() for _ in Priority)
        # When tickets expire. What was answered otherwise is still in there, until its time comes or it becomes too much.
        self._timers: list[tuple[float, int, Ticket]] = []
        self._order = 0
        self._expired: list[Ticket] = []
        self._mean: float | None = None

    def change(self, settings: Server, bulkhead: Bulkhead | None = None) -> None:
        """Go on under other settings, with another ``bulkhead`` or (None) the same.

        Calls under way keep their places, and who waits the time that it was given. ``start`` is to be called next.
        """
        if bulkhead is not None:
            bulkhead.in_flight = self.bulkhead.in_flight
            self.bulkhead = bulkhead
        self._wait = settings.wait
        self._room = settings.queue if settings.wait > 0.0 else 0

    def arrive(
        self, now: float, priority: Priority, deadline: float = inf
    ) -> Literal[Admitted.ADMITTED] | Queued | Shed:
        """Decide about a call that comes in and must be over at ``deadline``."""
        if deadline <= now:
            return Shed(self.retry_after(), Reason.LATE)
        if not self.waiting and self.bulkhead.acquire():
            return ADMITTED
        displaced = None
        if self.waiting >= self._room:
            self._collect(now)
            if self.waiting >= self._room:
                displaced = self._displace(priority)
                if displaced is None:
                    return Shed(self.retry_after(), Reason.FULL)
        ticket = Ticket(priority, min(now + self._wait, deadline))
        self._queues[priority][ticket] = None
        self.waiting += 1
        self._order += 1
        heappush(self._timers, (ticket.until, self._order, ticket))
        if len(self._timers) > 2 * self.waiting + 64:
            self._timers = [timer for timer in self._timers if timer[2] in self._queues[timer[2].priority]]
            heapify(self._timers)
        return Queued(ticket, displaced)

    def leave(self, now: float, seconds: float | None = None, dropped: bool = False) -> Sequence[Ticket]:
        """A call is over. Returns the tickets that have a place now, as ``start`` does.

        ``seconds`` and ``dropped`` as in ``AdaptiveBulkhead.release``. Raises ValueError when no call is under way.
        """
        self.bulkhead.release(now, seconds, dropped)
        if seconds is not None and not dropped:
            self._mean = seconds if self._mean is None else self._mean + SMOOTHING * (seconds - self._mean)
        return self.start(now) if self.waiting else ()

    def start(self, now: float) -> Sequence[Ticket]:
        """Give free places to those that wait, the most important first. For when the limit was raised."""
        self._collect(now)
        started = []
        for queue in reversed(self._queues):
            while queue and self.bulkhead.acquire():
                ticket, _ = queue.popitem(last=False)
                self.waiting -= 1
                started.append(ticket)
        return started

    def expire(self, now: float) -> Sequence[Ticket]:
        """Return the tickets whose wait or deadline is over; they are to be refused."""
        self._collect(now)
        expired, self._expired = self._expired, []
        return expired

    def abandon(self, ticket: Ticket) -> bool:
        """Nobody waits with ``ticket`` any more. False: it was answered already, and if it has a place, it must ``leave``."""
        return self._remove(ticket)

    def retry_after(self) -> float:
        """Return after how many seconds those that wait now should be through: their number by the rate of completions."""
        if self._mean is None:
            return RETRY_UNKNOWN
        estimate = (self.waiting + 1) * self._mean / self.bulkhead.limit
        return min(RETRY_MOST, max(RETRY_LEAST, estimate))

    def _collect(self, now: float) -> None:
        """Take those whose time is over out of the queue, until ``expire`` tells of them."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            ticket = heappop(timers)[2]
            if self._remove(ticket):
                self._expired.append(ticket)

    def _displace(self, priority: Priority) -> Ticket | None:
        """Take the least important ticket out of the queue if it is less so than ``priority``; the newest has lost least."""
        for queue in self._queues[:priority]:
            if queue:
                ticket, _ = queue.popitem()
                self.waiting -= 1
                return ticket
        return None

    def _remove(self, ticket: Ticket) -> bool:
        queue = self._queues[ticket.priority]
        if ticket not in queue:
            return False
        del queue[ticket]
        self.waiting -= 1
        return True
