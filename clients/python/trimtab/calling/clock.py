"""The time as it is."""

from __future__ import annotations

import asyncio
import time

from trimtab.calling.wheel import Deadline
from trimtab.core.clock import Event


class RealClock:
    """Seconds of the machine's monotonic clock. See ``core.clock.Clock``."""

    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    pause = staticmethod(asyncio.sleep)
    deadline = Deadline

    @staticmethod
    def wait(event: Event, seconds: float, /) -> None:
        """Hold this thread up until something happens, but no longer than that."""
        event.wait(seconds)
