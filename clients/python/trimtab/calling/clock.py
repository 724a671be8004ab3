"""The clock that calls live by outside of tests."""

from __future__ import annotations

import asyncio
import time

from trimtab.calling.wheel import Deadline


class SystemClock:
    """The machine's monotonic clock. Nothing stands between a call and the interpreter's own functions."""

    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    pause = staticmethod(asyncio.sleep)
    deadline = Deadline


SYSTEM = SystemClock()
