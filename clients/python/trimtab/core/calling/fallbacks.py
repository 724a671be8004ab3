"""What a caller gets instead when its call failed for good."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any, Literal, NamedTuple

from trimtab.core.calling.parts import Lock
from trimtab.core.fallback import LastGood
from trimtab.errors import DeadlineExceeded, NoEndpoints, Rejected
from trimtab.policy.sections import Fallback

Reason = Literal["failure", "refused", "timeout", "no-endpoints"]


class Substitute(NamedTuple):
    """An answer that is not the callee's. ``source``: "cache", "value", or the ``service`` to ask; ``age`` in seconds."""

    source: Literal["cache", "value", "service"]
    value: Any
    age: float = 0.0


class Fallbacks:
    """The fallback section of a policy, with the answers that it keeps. Freshest first: cache, other service, fixed value.

    ``lock``: its service's.
    """

    def __init__(self, settings: Fallback, lock: Lock) -> None:
        self._settings = settings
        self._lock = lock
        cache = settings.cache
        self._last_good: LastGood[Any] | None = LastGood(cache) if cache is not None else None
        self.status = settings.status

    @property
    def keeps(self) -> bool:
        """Good answers are wanted."""
        return self._last_good is not None

    @property
    def largest(self) -> int:
        """Bytes of an answer that is worth keeping."""
        return self._settings.cache.size if self._settings.cache is not None else 0

    def keep(self, key: Hashable, value: Any, size: int, now: float) -> None:
        """A good answer to the request that ``key`` stands for."""
        if self._last_good is not None:
            with self._lock:
                self._last_good.keep(key, value, size, now)

    def instead(self, reason: Reason, key: Hashable, now: float, *, elsewhere: bool = True) -> Substitute | None:
        """What there is instead of an answer; None: nothing, for this reason. ``elsewhere``: another service can be asked."""
        settings = self._settings
        if reason not in settings.on:
            return None
        if self._last_good is not None:
            with self._lock:
                found = self._last_good.find(key, now)
            if found is not None:
                return Substitute("cache", *found)
        if settings.service is not None and elsewhere:
            return Substitute("service", settings.service)
        if settings.value is not None:
            return Substitute("value", json.loads(settings.value))
        return None


def reason(error: BaseException) -> Reason:
    """Why a call failed, as ``fallback.on`` names it."""
    if isinstance(error, Rejected):
        return "refused"
    if isinstance(error, NoEndpoints):
        return "no-endpoints"
    return "timeout" if isinstance(error, (DeadlineExceeded, TimeoutError)) else "failure"
