"""The last good answers, for when there is no new one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from trimtab.policy.sections import Cache

V = TypeVar("V")


class _Kept(NamedTuple, Generic[V]):
    value: V
    at: float


class LastGood(Generic[V]):
    """A bounded cache: the least recently used goes first, and what is too old is of no use.

    Not thread-safe; times in seconds of one clock, handed in. Not more than ``entries`` times ``size`` bytes of answers.
    """

    __slots__ = ("_kept", "_settings")

    def __init__(self, settings: Cache) -> None:
        self._settings = settings
        self._kept: OrderedDict[Hashable, _Kept[V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, key: Hashable, value: V, size: int, now: float) -> None:
        """Remember an answer of ``size`` bytes. One that is too large takes nobody's place, not even its predecessor's."""
        if size > self._settings.size:
            return
        self._kept[key] = _Kept(value, now)
        self._kept.move_to_end(key)
        if len(self._kept) > self._settings.entries:
            self._kept.popitem(last=False)

    def find(self, key: Hashable, now: float) -> tuple[V, float] | None:
        """The last good answer and its age in seconds; None when there is none that is young enough."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        age = now - kept.at
        if age > self._settings.max_age:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return kept.value, age
