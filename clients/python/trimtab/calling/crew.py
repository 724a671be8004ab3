"""The threads and tasks of a mesh for what goes on beside each other: copies that race, and mirrored ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

logger = logging.getLogger("trimtab")

# What is given up in a blocking library holds its thread until it ends by itself, so there must be an end to threads.
LIMIT = 64
# A thread without work ends after so many seconds.
_IDLE = 10.0


class RealCrew:
    """Threads are started as they are needed, ``limit`` of them at most. Thread-safe; see ``core.crew.Crew``."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self.closed = False
        self.revive()

    def revive(self) -> None:
        """Begin without threads and tasks, at first and in a forked child."""
        self._changed = threading.Condition()
        self._waiting: deque[Callable[[], object]] = deque()
        self._threads = 0
        self._idle = 0
        self._tasks: dict[asyncio.Task[Any], bool] = {}  # and whether a call waits for it

    @property
    def free(self) -> bool:
        """A thread could take on more."""
        return not self.closed and (self._idle > len(self._waiting) or self._threads < self._limit)

    def start(self, work: Callable[[], object]) -> bool:
        """Have ``work`` done by a thread. Returns False when none is free."""
        with self._changed:
            if not self.free:
                return False
            if self._idle <= len(self._waiting):
                # Daemons: what hangs in a library must not keep the program from ending.
                thread = threading.Thread(target=self._run, name="trimtab-crew", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return False
                self._threads += 1
            self._waiting.append(work)
            self._changed.notify()
        return True

    def spawn(
        self,
        work: Coroutine[Any, Any, object],
        done: Callable[[], object] | None = None,
        context: Context | None = None,
        *,
        awaited: bool = True,
    ) -> asyncio.Task[Any]:
        """Have ``work`` done by a task of the running loop. ``done`` is called at its end, also when it never began."""
        task = asyncio.get_running_loop().create_task(work, name="trimtab-crew", context=context)
        self._tasks[task] = awaited

        def ended(task: asyncio.Task[Any]) -> None:
            del self._tasks[task]
            if done is not None:
                done()

        task.add_done_callback(ended)
        return task

    def close(self) -> None:
        """Take on no more. What a call waits for goes on with it; other tasks are cancelled. Threads end with what they do."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        for task, awaited in list(self._tasks.items()):
            if not awaited:
                with contextlib.suppress(RuntimeError):  # its loop is closed, and it with it
                    task.get_loop().call_soon_threadsafe(task.cancel)

    def _run(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except BaseException:
                # Nobody waits for it, so nobody else would hear of it; and the next one's turn is to come.
                logger.exception("work beside a call failed")

    def _next(self) -> Callable[[], object] | None:
        """The next work, waiting for it. None: the thread is to end."""
        with self._changed:
            if not self._waiting and not self.closed:
                self._idle += 1
                self._changed.wait(_IDLE)
                self._idle -= 1
            if self._waiting:
                return self._waiting.popleft()
            self._threads -= 1
            return None
