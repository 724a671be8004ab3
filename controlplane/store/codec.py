"""Between the core's nouns and the store's keys and bytes."""

from __future__ import annotations

from controlplane.core.change import Absent, Change, Expectation, Present, Unchanged
from controlplane.core.model import Event, Kind, Ref, Stored
from controlplane.errors import Code, TrimtabError
from controlplane.store.keys import Keys
from controlplane.store.port import Compare, Delete, KeyValue, Operator, Put, Target, Transaction, WatchEvent
from controlplane.store.record import decode, encode


class Codec:
    """Translates refs, changes and records of one mesh; ``prefix`` is the mesh's, as ``trimtab/default``."""

    def __init__(self, prefix: str) -> None:
        self._keys = Keys(prefix)

    @property
    def live_prefix(self) -> str:
        """The one prefix to list and watch: everything but sessions."""
        return self._keys.live

    def kind_prefix(self, kind: Kind) -> str:
        """The prefix below which all records of ``kind`` live."""
        return self._keys.branch(kind)

    def key(self, ref: Ref) -> str:
        """The record's key. Raises ``INVALID`` when a part of its path is empty."""
        return self._keys.key(ref)

    def ref(self, key: str) -> Ref:
        """The record that lives at ``key``. Raises ``MALFORMED`` for a key outside this mesh or of an unknown kind."""
        ref = self._keys.ref(key)
        if ref is None:
            raise TrimtabError(
                Code.MALFORMED, f"key {key!r} is of a kind that this version does not know", hint="upgrade this replica"
            )
        return ref

    def transaction(self, change: Change) -> Transaction:
        """The change as one transaction."""
        return Transaction(
            compare=tuple(self._compare(expectation) for expectation in change.expect),
            then=(
                *(Put(self.key(write.ref), encode(write.record), write.lease) for write in change.write),
                *(Delete(self.key(ref)) for ref in change.remove),
            ),
        )

    def stored(self, kv: KeyValue) -> Stored:
        """The record that ``kv`` holds. Raises ``MALFORMED`` naming the key when its value is garbage."""
        ref = self.ref(kv.key)
        record = decode(ref, kv.value, key=kv.key)
        return Stored(ref, record, created=kv.create_revision, revision=kv.mod_revision, lease=kv.lease)

    def event(self, event: WatchEvent) -> Event | None:
        """What happened, or None for a record of a kind that this version does not know.

        Raises ``MALFORMED`` naming the key when the value is garbage.
        """
        ref = self._keys.ref(event.key)
        if ref is None:
            return None
        stored = None if event.value is None else self.stored(event.value)
        return Event(ref, stored, event.revision)

    def _compare(self, expectation: Expectation) -> Compare:
        key = self.key(expectation.ref)
        match expectation:
            case Absent():
                return Compare(key, Target.CREATE_REVISION, Operator.EQUAL, 0)
            case Present():
                return Compare(key, Target.CREATE_REVISION, Operator.GREATER, 0)
            case Unchanged(revision=revision):
                return Compare(key, Target.MOD_REVISION, Operator.EQUAL, revision)
