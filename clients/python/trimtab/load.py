"""The load of the machine, or of the container when it is bounded, for heartbeats.

A control group with a limit speaks first, because a container shares its host's figures but not its resources. Else psutil
(the extra ``trimtab[load]``) tells of the host. What nobody can tell is reported as -1, "unknown", never guessed.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNKNOWN = -1.0


class HostLoad:
    """Reads CPU and memory use; call it at the pace of heartbeats.

    CPU is a share of the time between two calls, so the first call answers -1 for it. Cheap: at most four small files
    or two system calls each time, and nothing that waits. Not thread-safe: one caller owns it.
    """

    def __init__(
        self, *, cgroup: Path | None = None, clock: Callable[[], float] = time.monotonic, use_psutil: bool = True
    ) -> None:
        self._cgroup = _own_cgroup() if cgroup is None else cgroup
        self._clock = clock
        self._psutil = _psutil() if use_psutil else None
        self._host_primed = False
        self._last: tuple[float, float] | None = None

    def __call__(self) -> tuple[float, float]:
        """CPU and memory in use, each 0 to 1, or -1 when unknown."""
        return self._cpu(), self._memory()

    def _cpu(self) -> float:
        cores = quota_cores(_read(self._cgroup / "cpu.max"))
        used = used_seconds(_read(self._cgroup / "cpu.stat"))
        if cores is None or used is None:
            return self._host_cpu()
        now = self._clock()
        last, self._last = self._last, (now, used)
        if last is None or now <= last[0]:
            return UNKNOWN
        return _share((used - last[1]) / (now - last[0]) / cores)

    def _host_cpu(self) -> float:
        if self._psutil is None:
            return UNKNOWN
        percent = float(self._psutil.cpu_percent(interval=None))
        # psutil's first answer is a meaningless 0.0: it has nothing to compare with yet.
        primed, self._host_primed = self._host_primed, True
        return _share(percent / 100) if primed else UNKNOWN

    def _memory(self) -> float:
        limit, used = _read(self._cgroup / "memory.max").strip(), _read(self._cgroup / "memory.current").strip()
        if limit.isdigit() and used.isdigit() and int(limit) > 0:
            return _share(int(used) / int(limit))
        if self._psutil is None:
            return UNKNOWN
        return _share(float(self._psutil.virtual_memory().percent) / 100)


def quota_cores(cpu_max: str) -> float | None:
    """Cores that a ``cpu.max`` file grants, as "150000 100000" → 1.5; None when it sets no limit."""
    quota, _, period = cpu_max.strip().partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(quota) == 0 or int(period) == 0:
        return None
    return int(quota) / int(period)


def used_seconds(cpu_stat: str) -> float | None:
    """CPU seconds that a ``cpu.stat`` file counts; None when it does not say."""
    for line in cpu_stat.splitlines():
        key, _, value = line.partition(" ")
        if key == "usage_usec" and value.isdigit():
            return int(value) / 1e6
    return None


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        # No such controller here, which is the ordinary case outside a container.
        return ""


def _own_cgroup() -> Path:
    """The control group (version 2) of this process; a path without files when there is none."""
    root = Path("/sys/fs/cgroup")
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::"):
            return root / line[3:].lstrip("/")
    return root


def _psutil() -> Any:
    try:
        return importlib.import_module("psutil")
    except ImportError:
        return None
