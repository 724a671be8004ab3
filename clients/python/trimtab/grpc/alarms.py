"""What is due later in a program of threads: a retry's turn, the end of an attempt's time."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator

from trimtab.fork import tell_of_forks

logger = logging.getLogger("trimtab")


class Alarm:
    """Work that is due at a time. ``cancel`` is not too late as long as it has not begun."""

    __slots__ = ("_alarms", "work")

    def __init__(self, alarms: Alarms, work: Callable[[], None]) -> None:
        self._alarms = alarms
        self.work: Callable[[], None] | None = work

    def cancel(self) -> None:
        """Don't do it."""
        self.work = None
        self._alarms.wake()


class Alarms:
    """Does what is due, on a thread that is there only while something is. The work must not block."""

    _changed: threading.Condition
    _heap: list[tuple[float, int, Alarm]]
    _number: Iterator[int]
    _thread: threading.Thread | None

    def __init__(self) -> None:
        self.after_fork_in_child()
        tell_of_forks(self)

    def after(self, seconds: float, work: Callable[[], None]) -> Alarm:
        """Have ``work`` done in so many seconds."""
        alarm = Alarm(self, work)
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._number), alarm))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="trimtab-grpc-alarms", daemon=True)
                self._thread.start()
            self._changed.notify()
        return alarm

    def wake(self) -> None:
        """Something was cancelled."""
        with self._changed:
            self._changed.notify()

    def before_fork(self) -> bool:
        """A thread that sleeps disturbs nobody."""
        return False

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin without a thread, and without what was due to the parent's calls."""
        self._changed = threading.Condition()
        self._heap, self._number = [], itertools.count()
        self._thread = None

    def _run(self) -> None:
        while (work := self._due()) is not None:
            try:
                work()
            except Exception:
                # Whatever it is: the calls of others still have their turns to come.
                logger.exception("the next attempt of a call could not be made")

    def _due(self) -> Callable[[], None] | None:
        """Wait for what is due next. None: nothing is left, and the thread is to end."""
        with self._changed:
            while self._heap:
                when, _, alarm = self._heap[0]
                seconds = when - time.monotonic()
                if alarm.work is not None and seconds > 0:
                    self._changed.wait(seconds)
                    continue
                heapq.heappop(self._heap)
                if alarm.work is not None:
                    return alarm.work
            self._thread = None
            return None
