"""What may be wrong with an instance that is up and says that it is well: a switch, thrown by signals."""

from __future__ import annotations

import signal
import time
from enum import Enum
from functools import partial
from types import FrameType

# How long a slow instance takes to begin with a call, in seconds.
SLOWNESS = 0.25


class Ailment(Enum):
    """What an instance suffers from, and the signal that brings it about."""

    NONE = signal.SIGHUP
    FAILING = signal.SIGUSR1
    SLOW = signal.SIGUSR2


class Health:
    """How this process is. Make it in the main thread: it listens to the signals of ``Ailment``."""

    def __init__(self) -> None:
        self._ailment = Ailment.NONE
        for ailment in Ailment:
            signal.signal(ailment.value, partial(self._suffer, ailment))

    def endure(self) -> bool:
        """What every call meets first: a wait, if the instance is slow. Returns whether the call can be served at all."""
        if self._ailment is Ailment.SLOW:
            time.sleep(SLOWNESS)
        return self._ailment is not Ailment.FAILING

    def _suffer(self, ailment: Ailment, _number: int, _frame: FrameType | None) -> None:
        self._ailment = ailment
