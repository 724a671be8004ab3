"""What this process tells of its load: in heartbeats what it uses, and in answers also how many calls it serves for that."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import cached_property

from trimtab.calling.clock import RealClock
from trimtab.core.clock import Clock
from trimtab.core.orca import LoadReport
from trimtab.core.throughput import Throughput

logger = logging.getLogger("trimtab")

LoadSource = Callable[[], tuple[float, float]]

_PAUSE = 1.0  # seconds for which a measurement holds, and a report
_UNKNOWN = (-1.0, -1.0)


class Told:
    """A report as it is sent, written once for all answers that carry it."""

    def __init__(self, report: LoadReport) -> None:
        self.report = report

    @cached_property
    def text(self) -> str:
        """For HTTP."""
        return self.report.to_text()

    @cached_property
    def message(self) -> bytes:
        """For gRPC."""
        return self.report.to_bytes()


class LoadMeter:
    """Measures with ``source`` at most once a second, whoever asks, and counts the calls that are served. Thread-safe.

    ``counting``: somebody wants reports, so from now on every call is to be counted. As long as nobody does, none is. Without
    a ``source`` it is the machine, or the container (``trimtab.load``).
    """

    def __init__(self, source: LoadSource | None = None, clock: Clock | None = None) -> None:
        self._source = source
        self._now = (clock or RealClock()).now
        self.revive()

    def revive(self) -> None:
        """Begin anew, at first and in a forked child, which has served none of its parent's calls."""
        self.counting = False
        self._lock = threading.Lock()
        self._measuring = threading.Lock()
        self._measured = _UNKNOWN
        self._measure_at = self._report_at = float("-inf")
        self._calls = self._errors = 0
        self._throughput = Throughput(self._now())
        self._told = Told(LoadReport())

    def use(self, source: LoadSource) -> None:
        """Measure with another source from now on."""
        self._source, self._measure_at = source, float("-inf")

    def measure(self) -> tuple[float, float]:
        """CPU and memory in use, each 0 to 1, negative for unknown. Not older than a second, unless it is just being measured."""
        now = self._now()
        # Who comes meanwhile does not wait: the source is the program's own, and may be called from an event loop.
        if now >= self._measure_at and self._measuring.acquire(blocking=False):
            try:
                self._measure_at = now + _PAUSE
                self._measured = self._ask()
            finally:
                self._measuring.release()
        return self._measured

    def count(self) -> None:
        """Have calls counted from now on."""
        with self._lock:
            if not self.counting:
                self.counting = True
                self._throughput = Throughput(self._now())

    def served(self, failed: bool) -> None:
        """A call was served. ``failed``: by the fault of whoever served it."""
        with self._lock:
            self._calls += 1
            self._errors += failed

    def report(self) -> Told:
        """What there is to tell, not older than a second. Has calls counted from now on."""
        if not self.counting:
            self.count()
        now = self._now()
        if now >= self._report_at:
            cpu, memory = self.measure()
            with self._lock:
                self._report_at = now + _PAUSE
                qps, eps = self._throughput.read(now, self._calls, self._errors)
                self._told = Told(LoadReport(qps, eps, max(0.0, cpu), max(0.0, memory)))
        return self._told

    def _ask(self) -> tuple[float, float]:
        source = self._source
        if source is None:
            from trimtab.load import HostLoad

            source = self._source = HostLoad()
        try:
            return source()
        except Exception:
            # The program's own function: its failure must cost neither a heartbeat nor a call.
            logger.exception("the load source failed")
            return _UNKNOWN
