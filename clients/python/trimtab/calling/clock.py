"""The time as it is."""

from __future__ import annotations

import asyncio
import time

from trimtab.calling.wheel import Deadline


class RealClock:
    """Seconds of the machine's monotonic clock. See ``core.clock.Clock``."""

    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    pause = staticmethod(asyncio.sleep)
    deadline = Deadline
