"""From changed names to woken streams: debounce, then mark each follower's slot. Encoding is the streams' business."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from controlplane.core.debounce import Debounce
from controlplane.core.model import Event
from controlplane.core.resource import ResourceName
from controlplane.core.subscription import Subscriptions

# While thousands are told, what comes in waits, but for no longer than this (seconds). Whoever is let in meanwhile comes by the
# thousand, too: acknowledgements of those told first, which keep the last of 5,000 waiting by half as long again.
_TURN = 0.2
_BATCH = 50


class Follower(Protocol):
    """A stream, as far as the pusher knows it."""

    subscriptions: Subscriptions

    def wake(self) -> None:
        """Something may be in the slot."""
        ...


class Pusher:
    """Knows who follows what."""

    def __init__(self, *, quiet: float, limit: float) -> None:
        self._followers: dict[ResourceName, dict[Follower, None]] = {}
        self._waiting: set[Follower] = set()
        self._changed: dict[ResourceName, float] = {}
        self._debounce = Debounce(quiet=quiet, limit=limit)
        self._work = asyncio.Event()

    def follow(self, follower: Follower, names: Iterable[ResourceName]) -> None:
        """``follower`` is woken when one of ``names`` changes."""
        for name in names:
            self._followers.setdefault(name, {})[follower] = None

    def unfollow(self, follower: Follower, names: Iterable[ResourceName]) -> None:
        """… and no longer."""
        for name in names:
            followers = self._followers.get(name)
            if followers is not None:
                followers.pop(follower, None)
                if not followers:
                    del self._followers[name]
        self._waiting.discard(follower)

    def await_progress(self, follower: Follower) -> None:
        """``follower`` waits for the view to catch up with what its client already holds."""
        self._waiting.add(follower)

    @property
    def waiting(self) -> tuple[Follower, ...]:
        """Who waits so."""
        return tuple(self._waiting)

    def followers(self, name: ResourceName) -> int:
        """How many streams follow ``name``."""
        return len(self._followers.get(name, ()))

    def stepped(self, revision: int, names: frozenset[ResourceName], events: list[Event]) -> None:
        """The view moved on (a listener of the reconciler)."""
        now = asyncio.get_running_loop().time()
        for name in names:
            self._changed.setdefault(name, now)
        if names or self._waiting:
            self._debounce.add(now)
            self._work.set()

    async def run(self) -> None:
        """Fan out until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            while (due := self._debounce.due()) is not None and due > loop.time():  # noqa: ASYNC110 - a moving deadline
                await asyncio.sleep(due - loop.time())
            self._work.clear()
            self._debounce.clear()
            changed, self._changed = self._changed, {}
            waiting, self._waiting = self._waiting, set()
            woken, turn = 0, loop.time()
            for follower in waiting:
                follower.wake()
            for name, at in changed.items():
                for follower in tuple(self._followers.get(name, ())):
                    if follower.subscriptions.enqueue(name, at):
                        follower.wake()
                        woken += 1
                        if woken % _BATCH == 0 and loop.time() - turn > _TURN:
                            await asyncio.sleep(0)
                            turn = loop.time()
