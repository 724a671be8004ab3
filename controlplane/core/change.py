"""A decision's outcome: what must hold in the store, and what is then written, all or nothing."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.core.model import Record, Ref


@dataclass(frozen=True, slots=True)
class Absent:
    """Holds while no such record exists."""

    ref: Ref


@dataclass(frozen=True, slots=True)
class Present:
    """Holds while the record exists, whatever it says."""

    ref: Ref


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Holds while the record's last write is the one of ``revision``."""

    ref: Ref
    revision: int


Expectation = Absent | Present | Unchanged


@dataclass(frozen=True, slots=True)
class Write:
    """Put a record, on a session's lease or (0) by itself."""

    ref: Ref
    record: Record
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One transaction. An empty change writes nothing and always holds."""

    expect: tuple[Expectation, ...] = ()
    write: tuple[Write, ...] = ()
    remove: tuple[Ref, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.write and not self.remove
