"""etcd as it is, read and watched past the control plane."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from controlplane.app import KEY_PREFIX
from controlplane.core.model import Kind, Stored
from controlplane.store.codec import Codec
from controlplane.store.etcd import EtcdOptions, EtcdStore
from controlplane.store.ledger import Ledger
from controlplane.store.port import Delete, Put, Transaction, WatchEvent

T = TypeVar("T")


class Archive:
    """The records of one mesh. Use it as a context manager."""

    def __init__(self, endpoint: str, mesh: str = "default") -> None:
        self.root = f"/{KEY_PREFIX}/{mesh}/"
        self._codec = Codec(self.root)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="archive", daemon=True)
        self._thread.start()
        self._store = self._do(self._open(endpoint))

    def close(self) -> None:
        self._do(self._store.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def records(self, kind: Kind) -> list[Stored]:
        """Every record of a kind, now."""

        async def read() -> list[Stored]:
            ledger = Ledger(self._store, self._codec)
            if kind is Kind.SESSION:
                return await ledger.sessions()
            return [stored for stored in (await ledger.load())[1] if stored.ref.kind is kind]

        return self._do(read())

    def instances(self, service: str) -> dict[str, Stored]:
        """The instances of a service of the default namespace, by id."""
        path = ("default", service)
        return {s.ref.path[2]: s for s in self.records(Kind.INSTANCE) if s.ref.path[:2] == path}

    def put(self, key: str, value: bytes) -> None:
        """Write something that no control plane would."""
        self._do(self._store.commit(Transaction(then=(Put(key, value),))))

    def remove(self, key: str) -> None:
        self._do(self._store.commit(Transaction(then=(Delete(key),))))

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Everything that is written or deleted below the mesh's prefix from now on."""
        revision = self._do(self._store.status()).revision
        recording = Recording(self._codec, revision)
        watching: Future[None] = asyncio.run_coroutine_threadsafe(self._watch(revision, recording), self._loop)
        try:
            yield recording
            # Whatever was written until now is in the recording before it ends.
            reached = self._do(self._store.status()).revision
            assert recording.reached(reached), f"the watch did not reach revision {reached}"
        finally:
            watching.cancel()

    async def _open(self, endpoint: str) -> EtcdStore:
        return EtcdStore(EtcdOptions((endpoint,)))

    async def _watch(self, after: int, recording: Recording) -> None:
        async for batch in self._store.watch(self.root, after=after):
            recording.extend(batch.revision, batch.events)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Recording:
    """What a watch saw."""

    def __init__(self, codec: Codec, revision: int) -> None:
        self._codec = codec
        self._events: list[WatchEvent] = []
        self._revision = revision
        self._news = threading.Condition()

    def extend(self, revision: int, events: tuple[WatchEvent, ...]) -> None:
        with self._news:
            self._events.extend(events)
            self._revision = revision
            self._news.notify_all()

    def reached(self, revision: int) -> bool:
        """Wait until it is complete up to a revision; False when that takes too long."""
        with self._news:
            return self._news.wait_for(lambda: self._revision >= revision, timeout=30)

    def of(self, kind: Kind) -> list[WatchEvent]:
        """Events of one kind of record, in order."""
        with self._news:
            return [event for event in self._events if self._codec.ref(event.key).kind is kind]
