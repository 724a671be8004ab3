"""The store as the rest of the house sees it: transactions, lists at a revision, watches from a revision, leases.

Every implementation passes the one suite in ``tests/contract``. All failures are :class:`TrimtabError`:

- ``STORE_UNAVAILABLE``: no member answered or there is no leader; nothing is known to have been written.
- ``STORE_TIMEOUT``: no answer within the deadline; a write may or may not have happened.
- ``STORE_REFUSED``: the store said no (quota, read-only, wrong credentials); the message names the cause.
- ``STORE_COMPACTED``: the revision asked for is no longer kept, or the store was restored from before it: list again.
- ``SESSION_LOST``: a write hangs on a lease that does not exist (any more); nothing was written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as it stood at some revision. ``lease`` is 0 when it hangs on none."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int = 0


class Target(Enum):
    """What a comparison looks at."""

    CREATE_REVISION = "create_revision"
    MOD_REVISION = "mod_revision"
    LEASE = "lease"
    VALUE = "value"


class Operator(Enum):
    """How a comparison compares."""

    EQUAL = "="
    NOT_EQUAL = "!="
    GREATER = ">"
    LESS = "<"


@dataclass(frozen=True, slots=True)
class Compare:
    """One condition of a transaction, as ``Compare("k", Target.CREATE_REVISION, Operator.EQUAL, 0)`` (absent)."""

    key: str
    target: Target
    operator: Operator
    operand: int | bytes


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key, on a lease or (0) for ever."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove one key, or with ``prefix`` every key below it."""

    key: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Transaction:
    """All-or-nothing: ``then`` if every comparison holds; ``read`` keys are returned in either case."""

    compare: tuple[Compare, ...] = ()
    then: tuple[Put | Delete, ...] = ()
    read: tuple[str, ...] = ()

    @property
    def repeatable(self) -> bool:
        """Whether a second run after a lost answer cannot do harm: it writes nothing or is a compare-and-set."""
        return not self.then or bool(self.compare)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a transaction did.

    ``revision`` is the store's after it; ``found`` holds each key of ``read`` that existed (before the writes when
    the transaction wrote it, so that a caller can tell what it replaced).
    """

    succeeded: bool
    revision: int
    found: dict[str, KeyValue]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing. Every page of one listing carries the same revision."""

    revision: int
    items: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """``value`` is None when the key was deleted (or its lease ended) at ``revision``."""

    key: str
    value: KeyValue | None
    revision: int


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Events in revision order; never splits one revision over two batches.

    ``revision`` is the one up to which the watch is now complete. A batch without events is a progress note.
    """

    revision: int
    events: tuple[WatchEvent, ...]


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What the store says of itself. ``endpoint`` is the member that answered; ``size`` in bytes."""

    version: str
    endpoint: str
    revision: int
    size: int
    leader: bool
    alarms: tuple[str, ...] = ()


class Store(Protocol):
    """A revisioned key-value store with transactions, watches and leases (etcd's model)."""

    async def commit(self, transaction: Transaction) -> Outcome:
        """Run a transaction. A transaction that is not ``repeatable`` is sent at most once."""
        ...

    async def get(self, key: str) -> KeyValue | None:
        """Linearizable read of one key."""
        ...

    def list(self, prefix: str, *, page_size: int = 5000) -> AsyncIterator[Page]:
        """Every key below ``prefix`` at one revision, in pages, in key order. There is always at least one page."""
        ...

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[WatchBatch]:
        """Every change below ``prefix`` later than revision ``after``, without loss or duplicate, until closed.

        Lost connections are resumed inside. Raises ``STORE_COMPACTED`` when the place to resume at is gone.
        """
        ...

    async def grant(self, ttl: float) -> int:
        """A new lease of ``ttl`` seconds (rounded up); its id, never 0."""
        ...

    async def renew(self, leases: Sequence[int]) -> dict[int, float]:
        """Renew leases together; seconds left for each, 0 for one that no longer exists."""
        ...

    async def revoke(self, lease: int) -> None:
        """End a lease and delete every key on it, in one revision. Unknown leases are no error."""
        ...

    async def status(self) -> StoreStatus:
        """Ask a member for its state."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget history before ``revision``."""
        ...

    async def close(self) -> None:
        """Close connections; watches end."""
        ...
