"""The store within one process: for unit tests and simulations, with etcd's semantics and its refusals."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from controlplane.errors import Code, TrimtabError
from controlplane.store.port import (
    Compare,
    Delete,
    KeyValue,
    Operator,
    Outcome,
    Page,
    Put,
    StoreStatus,
    Target,
    Transaction,
    WatchBatch,
    WatchEvent,
)

# etcd's own limit (--max-txn-ops), kept here so that a test finds what production would refuse.
MAX_OPERATIONS = 128

_HOLDS: dict[Operator, Callable[[int | bytes, int | bytes], bool]] = {
    Operator.EQUAL: lambda found, operand: found == operand,
    Operator.NOT_EQUAL: lambda found, operand: found != operand,
    Operator.GREATER: lambda found, operand: found > operand,  # type: ignore[operator]
    Operator.LESS: lambda found, operand: found < operand,  # type: ignore[operator]
}


@dataclass(slots=True)
class _Lease:
    ttl: float
    ends: float
    keys: set[str] = field(default_factory=set)


class MemoryStore:
    """A :class:`~controlplane.store.port.Store` in memory. For one event loop; nothing survives it.

    ``clock`` gives seconds and drives leases: they end when any operation, a waiting watch or :meth:`expire` finds
    them due.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._revision = 1
        self._compacted = 0
        self._items: dict[str, KeyValue] = {}
        self._history: list[WatchBatch] = []
        self._leases: dict[int, _Lease] = {}
        self._lease_ids = itertools.count(0x7000_0000_0000_0001)
        self._changed = asyncio.Event()
        self._closed = False

    async def commit(self, transaction: Transaction) -> Outcome:
        """Run a transaction. Raises ``STORE_REFUSED`` and ``SESSION_LOST`` as etcd would."""
        self._open()
        self.expire()
        self._check_size(transaction)
        found = {key: self._items[key] for key in transaction.read if key in self._items}
        succeeded = all(self._holds(compare) for compare in transaction.compare)
        if succeeded:
            self._check_writes(transaction.then)
            self._apply(transaction.then)
        return Outcome(succeeded, self._revision, found)

    async def get(self, key: str) -> KeyValue | None:
        """Read one key."""
        self._open()
        self.expire()
        return self._items.get(key)

    async def list(self, prefix: str, *, page_size: int = 5000) -> AsyncGenerator[Page, None]:
        """Every key below ``prefix``, as it stood when the listing began."""
        self._open()
        self.expire()
        revision = self._revision
        items = [self._items[key] for key in sorted(self._items) if key.startswith(prefix)]
        for start in range(0, max(len(items), 1), page_size):
            if self._compacted > revision:
                raise self._compaction(revision)
            yield Page(revision, tuple(items[start : start + page_size]))

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[WatchBatch, None]:
        """Every change below ``prefix`` later than ``after``, one batch for each revision."""
        while not self._closed:
            self.expire()
            if after < self._compacted:
                raise self._compaction(after)
            changed = self._changed
            start = bisect_right(self._history, after, key=lambda batch: batch.revision)
            batches = self._history[start:]
            for batch in batches:
                after = batch.revision
                events = tuple(event for event in batch.events if event.key.startswith(prefix))
                if events:
                    yield WatchBatch(batch.revision, events)
            if not batches:
                await self._wait(changed)

    async def grant(self, ttl: float) -> int:
        """A new lease of ``ttl`` seconds, rounded up."""
        self._open()
        seconds = max(1, math.ceil(ttl))
        lease = next(self._lease_ids)
        self._leases[lease] = _Lease(seconds, self._clock() + seconds)
        return lease

    async def renew(self, leases: Sequence[int]) -> dict[int, float]:
        """Renew leases together; seconds left for each, 0 for one that no longer exists."""
        self._open()
        self.expire()
        left: dict[int, float] = {}
        for lease in leases:
            known = self._leases.get(lease)
            if known is not None:
                known.ends = self._clock() + known.ttl
            left[lease] = known.ttl if known else 0.0
        return left

    async def revoke(self, lease: int) -> None:
        """End a lease and delete its keys in one revision."""
        self._open()
        self._end(lease)

    async def status(self) -> StoreStatus:
        """What the store says of itself; ``size`` counts keys and values."""
        self._open()
        size = sum(len(key) + len(item.value) for key, item in self._items.items())
        return StoreStatus("memory", "memory", self._revision, size, leader=True)

    async def compact(self, revision: int) -> None:
        """Forget history before ``revision``. Raises ``STORE_REFUSED`` for a revision still to come."""
        self._open()
        if revision > self._revision:
            raise TrimtabError(Code.STORE_REFUSED, f"cannot compact at {revision}: the store is at {self._revision}")
        self._compacted = max(self._compacted, revision)
        self._history = [batch for batch in self._history if batch.revision >= self._compacted]

    async def close(self) -> None:
        """Watches end; every later call raises ``STORE_UNAVAILABLE``."""
        self._closed = True
        self._notify()

    def expire(self) -> tuple[int, ...]:
        """End every lease whose time has come; their ids."""
        now = self._clock()
        due = tuple(lease for lease, known in self._leases.items() if known.ends <= now)
        for lease in due:
            self._end(lease)
        return due

    def _open(self) -> None:
        if self._closed:
            raise TrimtabError(Code.STORE_UNAVAILABLE, "the store is closed")

    def _compaction(self, revision: int) -> TrimtabError:
        return TrimtabError(
            Code.STORE_COMPACTED, f"revision {revision} is gone, history begins at {self._compacted}", hint="list again"
        )

    def _check_size(self, transaction: Transaction) -> None:
        if max(len(transaction.compare), len(transaction.then) + len(transaction.read)) > MAX_OPERATIONS:
            raise TrimtabError(
                Code.STORE_REFUSED, f"a transaction of more than {MAX_OPERATIONS} operations", hint="split the change"
            )

    def _check_writes(self, operations: Sequence[Put | Delete]) -> None:
        puts = [operation for operation in operations if isinstance(operation, Put)]
        deletes = [operation for operation in operations if isinstance(operation, Delete)]
        for put in puts:
            if put.lease and put.lease not in self._leases:
                raise TrimtabError(Code.SESSION_LOST, f"lease {put.lease:x} does not exist", hint="open a new session")
        keys = [put.key for put in puts]
        covered = any(key == gone.key or (gone.prefix and key.startswith(gone.key)) for key in keys for gone in deletes)
        if covered or len(set(keys)) < len(keys):
            raise TrimtabError(Code.STORE_REFUSED, "a transaction that writes one key twice")

    def _holds(self, compare: Compare) -> bool:
        item = self._items.get(compare.key)
        found: int | bytes
        match compare.target:
            case Target.CREATE_REVISION:
                found = item.create_revision if item else 0
            case Target.MOD_REVISION:
                found = item.mod_revision if item else 0
            case Target.LEASE:
                found = item.lease if item else 0
            case Target.VALUE:
                # As in etcd, no comparison of a value holds for a key that does not exist.
                if item is None:
                    return False
                found = item.value
        return _HOLDS[compare.operator](found, compare.operand)

    def _apply(self, operations: Sequence[Put | Delete]) -> None:
        revision = self._revision + 1
        events: list[WatchEvent] = []
        for operation in operations:
            match operation:
                case Put():
                    events.append(self._put(operation, revision))
                case Delete(key=key, prefix=False):
                    events += [self._delete(key, revision)] if key in self._items else []
                case Delete(key=prefix):
                    gone = sorted(key for key in self._items if key.startswith(prefix))
                    events += [self._delete(key, revision) for key in gone]
        # Deleting what is not there is no change, and no change is no revision.
        if events:
            self._revision = revision
            self._history.append(WatchBatch(revision, tuple(events)))
            self._notify()

    def _put(self, put: Put, revision: int) -> WatchEvent:
        before = self._items.get(put.key)
        if before is not None and before.lease:
            self._leases[before.lease].keys.discard(put.key)
        if put.lease:
            self._leases[put.lease].keys.add(put.key)
        created = before.create_revision if before else revision
        item = KeyValue(put.key, put.value, created, revision, put.lease)
        self._items[put.key] = item
        return WatchEvent(put.key, item, revision)

    def _delete(self, key: str, revision: int) -> WatchEvent:
        item = self._items.pop(key)
        if item.lease in self._leases:
            self._leases[item.lease].keys.discard(key)
        return WatchEvent(key, None, revision)

    def _end(self, lease: int) -> None:
        known = self._leases.pop(lease, None)
        if known is not None:
            self._apply([Delete(key) for key in sorted(known.keys)])

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self, changed: asyncio.Event) -> None:
        """Until something changes, or a moment when leases exist: nothing else may be there to notice their end."""
        try:
            async with asyncio.timeout(0.05 if self._leases else 5.0):
                await changed.wait()
        except TimeoutError:
            return
