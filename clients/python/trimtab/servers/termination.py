"""SIGTERM, taken before the server sees it, and handed on once the drain is over.

Servers stop to listen as soon as they see SIGTERM. A mesh needs the opposite order: first clients learn, then the server stops.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

_log = logging.getLogger("trimtab")


class Termination:
    """Stands before the server's own SIGTERM handler.

    The first SIGTERM calls ``begin`` and goes no further; further ones change nothing, because process managers repeat
    it. ``hand_on`` delivers it to the server at last. SIGINT and SIGQUIT are not touched: they stop the server at once.
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin
        self._previous: Callable[[int, FrameType | None], object] | int | None = None
        self._installed = False
        self._pid = os.getpid()
        self._begun = False
        self._over = False

    @property
    def previous(self) -> Callable[[int, FrameType | None], object] | int | None:
        """The server's own handler, as ``signal.getsignal`` told it; None before ``install``."""
        return self._previous

    def install(self) -> bool:
        """Take SIGTERM. False, and nothing done, outside of the main thread or when an event loop owns the signal."""
        if threading.current_thread() is not threading.main_thread():
            _log.warning("SIGTERM can only be taken in the main thread: this server will stop without a drain")
            return False
        previous = signal.getsignal(signal.SIGTERM)
        if getattr(previous, "__module__", None) == "asyncio.unix_events":
            _log.warning(
                "an event loop owns SIGTERM: this server will stop without a drain; "
                "run it under `trimtab run`, or gunicorn with trimtab.servers.gunicorn"
            )
            return False
        self._previous, self._pid = previous, os.getpid()
        signal.signal(signal.SIGTERM, self._on_signal)
        # Like the servers do: a system call of a request is not to be interrupted by the news.
        signal.siginterrupt(signal.SIGTERM, False)
        self._installed = True
        return True

    def hand_on(self) -> None:
        """Let the server have its SIGTERM, as a real signal, so that whatever it waits in wakes up. From any thread."""
        self._over = True
        os.kill(os.getpid(), signal.SIGTERM)

    def restore(self) -> None:
        """Give SIGTERM back to the server, if nobody took it since. In the main thread only, elsewhere nothing happens."""
        if not self._installed or threading.current_thread() is not threading.main_thread():
            return
        self._installed = False
        if signal.getsignal(signal.SIGTERM) == self._on_signal and self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A child that was forked a moment ago and has no handler of its own yet: it simply ends.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        elif self._over:
            self._deliver(signum, frame)
        elif not self._begun:
            self._begun = True
            self._begin()

    def _deliver(self, signum: int, frame: FrameType | None) -> None:
        if callable(self._previous):
            self._previous(signum, frame)
        elif self._previous == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
