"""Rules that tell who looks at their parts without the lock, under which calls add some."""

from __future__ import annotations

import threading
from typing import Any

from trimtab.discovery import Callee

_PARTS = ("circuits", "ejected", "bulkheads")


class WatchedRules:
    """The rules of a service. ``unlocked``: what was looked at without its lock."""

    def __init__(self, service: Callee) -> None:
        self._service, self._rules = service, service.rules
        self.seen: list[str] = []
        self.unlocked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in _PARTS:
            self.seen.append(name)
            if not self._locked():
                self.unlocked.append(name)
        return getattr(self._rules, name)

    def _locked(self) -> bool:
        taken: list[bool] = []

        def take() -> None:
            taken.append(self._service.lock.acquire(blocking=False))
            if taken[0]:
                self._service.lock.release()

        somebody_else = threading.Thread(target=take)
        somebody_else.start()
        somebody_else.join()
        return not taken[0]


def watch(service: Callee) -> WatchedRules:
    """Watch a service from now on."""
    watched = WatchedRules(service)
    service.rules = watched  # type: ignore[assignment]
    return watched
