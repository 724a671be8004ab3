"""Callbacks of the program, run by a thread of their own so that a slow one holds up nothing but itself and its like."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

logger = logging.getLogger("trimtab")


class Watch:
    """A callback that is told the newest value after every change; what it was too slow for is left out."""

    def __init__(self, callbacks: Callbacks, callback: Callable[[Any], object]) -> None:
        self._callbacks = callbacks
        self._callback: Callable[[Any], object] | None = callback
        self._newest: list[Any] = []
        self.stop: Callable[[], None] = lambda: None

    def offer(self, value: Any) -> None:
        """Take a newer value. Never blocks."""
        # One slot, replaced as a whole: the caller's thread takes it by popping, so a value is never told twice.
        self._newest = [value]
        self._callbacks.put(self)

    def tell(self) -> None:
        """Call the callback with the newest value, unless it was told already."""
        newest, callback = self._newest, self._callback
        if not newest or callback is None:
            return
        value = newest.pop()
        try:
            callback(value)
        except Exception:
            # The program's own error: it must not end the other callbacks.
            logger.exception("a callback failed")

    def cancel(self) -> None:
        """Be told no more."""
        self._callback = None
        self.stop()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


class Told(Protocol):
    """Something that tells the program what it holds."""

    def tell(self) -> None:
        """Call the program. Raises nothing."""
        ...


class Callbacks:
    """The thread that runs them, started with the first."""

    def __init__(self) -> None:
        self.revive()

    def revive(self) -> None:
        """Begin without a thread, at first and in a forked child."""
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Told | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, told: Told) -> None:
        """Have it told, soon."""
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed:
                    self._thread = threading.Thread(target=self._run, name="trimtab-callbacks", daemon=True)
                    self._thread.start()
        self._queue.put(told)

    def close(self, timeout: float) -> None:
        """Tell what is queued, then end. A callback that hangs is left behind after ``timeout`` seconds."""
        with self._lock:
            self._closed = True
        self._queue.put(None)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while (told := self._queue.get()) is not None:
            told.tell()
