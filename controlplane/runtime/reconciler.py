"""Keeps the view true: list at a revision, watch from it, list again on a gap, compare from time to time.

The only writer of the view. The store being away changes nothing: the last view is served until it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from heapq import heappop, heappush

from controlplane.core.model import Event, Stored
from controlplane.core.resource import ResourceName
from controlplane.core.view import View
from controlplane.errors import Code, TrimtabError
from controlplane.runtime.backoff import Backoff
from controlplane.runtime.metrics import Metrics
from controlplane.store.ledger import Ledger

log = logging.getLogger(__name__)


class Reconciler:
    """Drives one view from one ledger."""

    def __init__(self, ledger: Ledger, view: View, metrics: Metrics, *, compare_interval: float) -> None:
        self._ledger = ledger
        self._view = view
        self._metrics = metrics
        self._compare_interval = compare_interval
        self._listeners: list[Callable[[int, frozenset[ResourceName], list[Event]], None]] = []
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._pushed = 0
        self._resync = asyncio.Event()
        self.loaded = asyncio.Event()
        self.connected = False

    def listen(self, listener: Callable[[int, frozenset[ResourceName], list[Event]], None]) -> None:
        """Call ``listener`` after each step of the view, in the step's own turn of the loop: it must not block."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Follow the store until cancelled."""
        backoff = Backoff()
        reason = "start"
        while True:
            try:
                await self._follow(reason, backoff)
                reason = "compare"
            except TrimtabError as error:
                reason = "compacted" if error.code is Code.STORE_COMPACTED else "failed"
                if self.connected:
                    log.warning("the view stands still at revision %d: %s", self._view.revision, error)
                self.connected = False
                self._metrics.store_failures.labels(error.code.code).inc()
                if error.code is not Code.STORE_COMPACTED:
                    await backoff.wait()

    async def compare(self) -> None:
        """Compare the view with the store now and then, until cancelled; a difference makes it list again."""
        while True:
            await asyncio.sleep(self._compare_interval)
            try:
                if await self._differs():
                    log.error("the view differs from the store: listing again")
                    self._resync.set()
            except TrimtabError as error:
                log.warning("the view could not be compared with the store: %s", error)

    async def wait_for(self, revision: int, timeout: float = 5.0) -> None:
        """Return once the view has reached ``revision``. Raises STORE_TIMEOUT when it does not in time."""
        if self._view.revision >= revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pushed += 1
        heappush(self._waiters, (revision, self._pushed, future))
        try:
            await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise TrimtabError(
                Code.STORE_TIMEOUT,
                f"written at revision {revision}, but this replica's view stands at {self._view.revision}",
                hint="the write is safe; the view follows as soon as the store's watch does",
            ) from None

    async def store_revision(self) -> int:
        """Where the store stands now, by its own word. Store failures are raised."""
        return await self._ledger.revision()

    async def _follow(self, reason: str, backoff: Backoff) -> None:
        self._resync.clear()
        revision, records = await self._ledger.load()
        self._metrics.resyncs.labels(reason).inc()
        self._step(revision, self._view.load(revision, records), [Event(s.ref, s, revision) for s in records])
        self.loaded.set()
        self.connected = True
        backoff.reset()
        log.info("the view holds %d records at revision %d", len(records), revision)
        watch = asyncio.ensure_future(self._watch(revision))
        resync = asyncio.ensure_future(self._resync.wait())
        try:
            await asyncio.wait({watch, resync}, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                watch.result()
        finally:
            watch.cancel()
            resync.cancel()
            await asyncio.gather(watch, resync, return_exceptions=True)

    async def _watch(self, revision: int) -> None:
        async for reached, events in self._ledger.watch(after=revision):
            self._step(reached, self._view.apply(reached, events), events)

    def _step(self, revision: int, changed: set[ResourceName], events: list[Event]) -> None:
        names = frozenset(changed)
        self._metrics.events.inc(len(events))
        self._metrics.revision.set(self._view.revision)
        while self._waiters and self._waiters[0][0] <= self._view.revision:
            future = heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)
        for listener in self._listeners:
            listener(revision, names, events)

    async def _differs(self) -> bool:
        """List, then look twice at whatever is not equal: it may just have changed."""
        if not self.connected:
            return False
        revision, records = await self._ledger.load()
        listed = {stored.ref: stored for stored in records}
        held = {stored.ref: stored for stored in self._view.records()}
        doubtful = [ref for ref in listed.keys() | held.keys() if listed.get(ref) != held.get(ref)]
        for ref in doubtful:
            truth = await self._ledger.read(ref)
            if not await self._reaches(truth, revision) or self._view.record(ref) != truth:
                again = await self._ledger.read(ref)
                if again == truth and self._view.record(ref) != truth:
                    return True
        return False

    async def _reaches(self, truth: Stored | None, revision: int) -> bool:
        try:
            await self.wait_for(truth.revision if truth else revision)
        except TrimtabError:
            return False
        return True
