"""One call being made, and how many are being served."""

from __future__ import annotations

import threading
from types import TracebackType

from trimtab.core.endpoints import Endpoint, Tally


class Pick:
    """An endpoint chosen for one call. Say ``done`` when the call is over, or use it as a context manager."""

    __slots__ = ("_open", "_tally", "endpoint")

    def __init__(self, endpoint: Endpoint, tally: Tally) -> None:
        self.endpoint = endpoint
        self._tally = tally
        self._open = True
        tally.start()

    def done(self, ok: bool = True) -> None:
        """Count the call as over. ``ok``: the endpoint answered as it should. Saying it twice is saying it once."""
        if self._open:
            self._open = False
            self._tally.finish(ok)

    def __enter__(self) -> Pick:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done(kind is None)

    def __repr__(self) -> str:
        return f"<Pick {self.endpoint.id} {self.endpoint.target}>"


class LockedTally(Tally):
    """A tally for builds without the GIL."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Count a call that begins."""
        with self._lock:
            super().start()

    def finish(self, ok: bool) -> None:
        """Count a call that ended."""
        with self._lock:
            super().finish(ok)

    def take(self) -> tuple[int, int]:
        """Return calls and failures since the last take."""
        with self._lock:
            return super().take()


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
