"""The store in the core's words: records and changes instead of keys and bytes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from controlplane.core.change import Change
from controlplane.core.model import Event, Kind, Ref, Stored
from controlplane.errors import TrimtabError
from controlplane.store.codec import Codec
from controlplane.store.port import KeyValue, Store, Transaction, WatchEvent

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a change; ``current`` holds what was read with it, as it stood before the change."""

    succeeded: bool
    revision: int
    current: dict[Ref, Stored]


class Ledger:
    """Records of one mesh in one store. Failures are the store port's."""

    def __init__(self, store: Store, codec: Codec) -> None:
        self.store = store
        self.codec = codec

    async def commit(self, change: Change, *, read: Iterable[Ref] = ()) -> Result:
        """Make a change, all or nothing; ``read`` records come along with the answer."""
        plain = self.codec.transaction(change)
        keys = tuple(self.codec.key(ref) for ref in read)
        outcome = await self.store.commit(Transaction(plain.compare, plain.then, keys))
        found = [self.codec.stored(kv) for kv in outcome.found.values()]
        return Result(outcome.succeeded, outcome.revision, {stored.ref: stored for stored in found})

    async def read(self, ref: Ref) -> Stored | None:
        """One record, as of now."""
        found = await self.store.get(self.codec.key(ref))
        return None if found is None else self.codec.stored(found)

    async def revision(self) -> int:
        """Where the store stands now."""
        return (await self.store.commit(Transaction(read=(self.codec.live_prefix,)))).revision

    async def load(self) -> tuple[int, list[Stored]]:
        """Every watched record at one revision."""
        return await self._list(self.codec.live_prefix)

    async def sessions(self) -> list[Stored]:
        """Every session record."""
        _, found = await self._list(self.codec.kind_prefix(Kind.SESSION))
        return found

    async def watch(self, *, after: int) -> AsyncIterator[tuple[int, list[Event]]]:
        """Every change of a watched record after a revision, and the revision up to which that is all."""
        async for batch in self.store.watch(self.codec.live_prefix, after=after):
            events: list[Event] = []
            for event in batch.events:
                try:
                    decoded = self.codec.event(event)
                except TrimtabError as error:
                    # As good as gone: a replica that starts now would not see it either, and all must agree.
                    log.error("a record that cannot be read counts as gone: %s", error)
                    decoded = self.codec.event(WatchEvent(event.key, None, event.revision))
                if decoded is not None:
                    events.append(decoded)
            yield batch.revision, events

    async def _list(self, prefix: str) -> tuple[int, list[Stored]]:
        revision, found = 0, []
        async for page in self.store.list(prefix):
            revision = page.revision
            found += [stored for kv in page.items if (stored := self._readable(kv)) is not None]
        return revision, found

    def _readable(self, kv: KeyValue) -> Stored | None:
        try:
            return self.codec.stored(kv)
        except TrimtabError as error:
            # One bad record, written by hand perhaps, must not take the mesh down: say so and go on.
            log.error("a record that cannot be read counts as gone: %s", error)
            return None
