"""The store on etcd."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from controlplane.errors import Code, TrimtabError
from controlplane.store.etcd import leases
from controlplane.store.etcd import rpc_pb2 as pb
from controlplane.store.etcd import transaction as txn
from controlplane.store.etcd.cluster import Cluster
from controlplane.store.etcd.endpoint import COMPACT, GRANT, RANGE, REVOKE, STATUS
from controlplane.store.etcd.gathering import Gathering
from controlplane.store.etcd.options import EtcdOptions
from controlplane.store.etcd.watch import watch
from controlplane.store.port import KeyValue, Outcome, Page, StoreStatus, Transaction, WatchBatch

LEASE_BITS = 63


class EtcdStore:
    """A :class:`~controlplane.store.port.Store` on etcd. Connects with the first call.

    Raises ``SETTINGS`` when a certificate file cannot be read.
    """

    def __init__(self, options: EtcdOptions) -> None:
        self._cluster = Cluster(options)
        self._gathering = Gathering(self._cluster)

    async def commit(self, transaction: Transaction) -> Outcome:
        """Run a transaction, in one request with others that wait at the same moment; see ``gathering.py``.

        Raises ``SESSION_LOST`` when it writes on a lease that does not exist: nothing was written.
        """
        return await self._gathering.commit(transaction)

    async def get(self, key: str) -> KeyValue | None:
        """Linearizable read of one key."""
        answer = await self._cluster.call(RANGE, pb.RangeRequest(key=txn.to_bytes(key)))
        return next(map(txn.key_value, answer.message.kvs), None)

    async def list(self, prefix: str, *, page_size: int = 5000) -> AsyncGenerator[Page, None]:
        """Every key below ``prefix`` at one revision. Raises ``STORE_COMPACTED`` when overtaken by a compaction."""
        start, end = txn.range_start(prefix), txn.range_end(prefix)
        revision = 0
        more = True
        while more:
            request = pb.RangeRequest(key=start, range_end=end, limit=page_size, revision=revision)
            answer = (await self._cluster.call(RANGE, request)).message
            revision = revision or answer.header.revision
            yield Page(revision, tuple(map(txn.key_value, answer.kvs)))
            more = answer.more
            if more:
                start = answer.kvs[-1].key + b"\0"

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[WatchBatch, None]:
        """Every change below ``prefix`` later than ``after``; ``watch.py`` says how it goes on."""
        async with aclosing(watch(self._cluster, prefix, after)) as batches:
            async for batch in batches:
                yield batch

    async def grant(self, ttl: float) -> int:
        """A new lease. Its id is random, so that none can be guessed and a lost answer does no harm."""
        lease = secrets.randbits(LEASE_BITS) or 1
        request = pb.LeaseGrantRequest(TTL=max(1, math.ceil(ttl)), ID=lease)
        try:
            await self._cluster.call(GRANT, request, writes=True, again=lambda: request)
        except TrimtabError as error:
            # A repeated grant finds what its lost first run has made.
            if "lease already exists" not in error.message:
                raise
        return lease

    async def renew(self, leases_: Sequence[int]) -> dict[int, float]:
        """Renew leases together on one stream."""
        return await leases.renew(self._cluster, leases_)

    async def revoke(self, lease: int) -> None:
        """End a lease and delete its keys."""
        request = pb.LeaseRevokeRequest(ID=lease)
        try:
            await self._cluster.call(REVOKE, request, writes=True, again=lambda: request)
        except TrimtabError as error:
            if error.code is not Code.SESSION_LOST:
                raise

    async def status(self) -> StoreStatus:
        """The state of the member that answers; ``leader``: whether it knows one."""
        answer = await self._cluster.call(STATUS, pb.StatusRequest())
        status = answer.message
        alarms = {name for error in status.errors for name in re.findall(r"alarm:(\w+)", error)}
        return StoreStatus(
            version=status.version,
            endpoint=answer.endpoint,
            revision=status.header.revision,
            size=status.dbSize,
            leader=status.leader != 0,
            alarms=tuple(sorted(alarms)),
        )

    async def compact(self, revision: int) -> None:
        """Forget history before ``revision``; to do so again is no error."""
        request = pb.CompactionRequest(revision=revision)
        try:
            await self._cluster.call(COMPACT, request, writes=True, again=lambda: request)
        except TrimtabError as error:
            if error.code is not Code.STORE_COMPACTED:
                raise

    async def close(self) -> None:
        """Close connections; watches end."""
        await self._cluster.close()
        await self._gathering.close()


@asynccontextmanager
async def open_store(options: EtcdOptions) -> AsyncIterator[EtcdStore]:
    """An :class:`EtcdStore` that is closed at the end of the block."""
    store = EtcdStore(options)
    try:
        yield store
    finally:
        await store.close()
