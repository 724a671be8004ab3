"""Which transactions may go to etcd in one request, each nested in it with its own guard.

etcd judges every comparison of such a request before it writes anything, refuses it when a key could be written twice,
and gives all that it writes one revision. So no member may touch what another one writes: then each of them finds what
it would have found alone, in whatever order they are taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from controlplane.store.etcd.transaction import MAX_OPERATIONS, may_repeat
from controlplane.store.port import Delete, Put, Transaction

# More members cost the last of them time and save hardly anything any more.
MAX_MEMBERS = 64
# Far below etcd's default for --max-request-bytes, 1.5 MiB: what is not counted here is small.
MAX_BYTES = 512 * 1024
# How far behind the first one company is looked for, so that a crowd that cannot go together costs no more than it must.
LOOK_AHEAD = 4 * MAX_MEMBERS


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a transaction decides on its company. ``size`` in bytes, without what frames them.

    ``operations`` is its longest list, as etcd counts; ``repeatable`` whether it may be sent again after a lost answer.
    """

    written: frozenset[str]
    touched: frozenset[str]
    operations: int
    size: int
    repeatable: bool


def may_join(transaction: Transaction) -> bool:
    """Whether a transaction takes company: it writes, and it names every key that it writes."""
    prefixes = any(isinstance(operation, Delete) and operation.prefix for operation in transaction.then)
    return bool(transaction.then) and not prefixes


def shape(transaction: Transaction) -> Shape:
    """The shape of a transaction that :func:`may_join`."""
    written = frozenset([operation.key for operation in transaction.then])
    touched = written.union(transaction.read, [compare.key for compare in transaction.compare])
    values = sum([len(operation.value) for operation in transaction.then if isinstance(operation, Put)])
    values += sum([len(compare.operand) for compare in transaction.compare if isinstance(compare.operand, bytes)])
    return Shape(
        written,
        touched,
        operations=max(len(transaction.compare), len(transaction.read) + len(transaction.then)),
        size=values + sum(map(len, touched)),
        repeatable=may_repeat(transaction),
    )


def choose(waiting: Iterable[Shape]) -> list[int]:
    """The places, in order, of those that go next: the first, and whoever of the next :data:`LOOK_AHEAD` fits to it.

    Nobody overtakes a transaction that touches what it writes or writes what it touches.
    """
    chosen: list[int] = []
    group, passed = _Keys(), _Keys()
    repeatable, operations, size = False, 0, 0
    for place, candidate in enumerate(islice(waiting, LOOK_AHEAD)):
        if not chosen:
            repeatable = candidate.repeatable
        longest = max(operations, candidate.operations)
        fits = (
            # What may be asked again is, soon, of another member; the others have to wait for their only answer.
            candidate.repeatable is repeatable
            # etcd takes the number of members from what it lets each member do.
            and len(chosen) + 1 + longest <= MAX_OPERATIONS
            and size + candidate.size <= MAX_BYTES
            and not group.clash(candidate)
            and not passed.clash(candidate)
        )
        if not fits and chosen:
            passed.add(candidate)
            continue
        chosen.append(place)
        group.add(candidate)
        operations, size = longest, size + candidate.size
        if len(chosen) == MAX_MEMBERS:
            break
    return chosen


class _Keys:
    """The keys of some transactions."""

    def __init__(self) -> None:
        self._written: set[str] = set()
        self._touched: set[str] = set()

    def add(self, shape: Shape) -> None:
        self._written |= shape.written
        self._touched |= shape.touched

    def clash(self, shape: Shape) -> bool:
        return not (self._touched.isdisjoint(shape.written) and self._written.isdisjoint(shape.touched))
