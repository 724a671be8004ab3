"""Time as callers live in it. The core never asks for it: it hands a clock on to those who drive its calls."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractContextManager
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits for it, in seconds that never go back."""

    def now(self) -> float:
        """The time."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Hold this thread up."""
        ...

    def pause(self, seconds: float, /) -> Awaitable[None]:
        """Let other tasks run meanwhile."""
        ...

    def deadline(self, when: float, /) -> AbstractContextManager[None]:
        """End what the task does inside when the time has come, with TimeoutError."""
        ...
