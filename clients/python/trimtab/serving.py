"""How many calls this process is serving."""

from __future__ import annotations

import threading
from types import TracebackType


class InFlight:
    """The number of calls being served right now: ``int(serving)``. ``with serving:`` around each, or enter and exit."""

    def __init__(self) -> None:
        self.revive()

    def revive(self) -> None:
        """Begin at 0, at first and in a forked child, which serves none of its parent's calls."""
        self._lock = threading.Lock()
        self._count = 0

    def enter(self) -> None:
        """A call begins."""
        with self._lock:
            self._count += 1

    def exit(self) -> None:
        """A call is over."""
        with self._lock:
            self._count -= 1

    def __int__(self) -> int:
        return self._count

    def __enter__(self) -> InFlight:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.exit()
