"""Time as callers live in it. The core never asks for it: it hands a clock on to those who drive its calls."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractContextManager
from typing import Protocol


class Event(Protocol):
    """Something that threads wait for, as ``threading.Event``."""

    def is_set(self) -> bool:
        """It happened."""
        ...

    def wait(self, timeout: float) -> bool:
        """Hold this thread up until it happens; False when that took too long."""
        ...


class Clock(Protocol):
    """Tells the time and waits for it, in seconds that never go back."""

    def now(self) -> float:
        """The time."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Hold this thread up."""
        ...

    def wait(self, event: Event, seconds: float, /) -> None:
        """Hold this thread up until something happens, but no longer than that."""
        ...

    def pause(self, seconds: float, /) -> Awaitable[None]:
        """Let other tasks run meanwhile."""
        ...

    def deadline(self, when: float, /) -> AbstractContextManager[None]:
        """End what the task does inside when the time has come, with TimeoutError."""
        ...
