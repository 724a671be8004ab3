"""A service in virtual time, and hedged calls to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trimtab.core.calling.call import Call
from trimtab.core.calling.hedged import Copies, Hedged
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.endpoints import Tally
from trimtab.testing import FakeMesh

THREE = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")


class HedgedService:
    """A service whose policy has a hedge section, and the parts of one call to it."""

    def __init__(self, mesh: FakeMesh, policy: str) -> None:
        self.mesh = mesh
        self.clock = mesh.clock
        mesh.policy("orders", policy)

    @property
    def pipeline(self) -> Pipeline:
        return self.mesh.callee("orders").pipeline("GET")

    @property
    def hedged(self) -> Hedged:
        found = self.pipeline.hedged
        assert found is not None
        return found

    @property
    def tallies(self) -> dict[str, Tally]:
        return self.mesh.callee("orders").state.tallies

    @property
    def in_flight(self) -> int:
        return sum(tally.in_flight for tally in self.tallies.values())

    def begin(self, *, deadline: float | None = None, idempotent: bool = True) -> tuple[Call, Copies]:
        """A call, and its copies, of which the first is under way."""
        now = self.clock.now()
        call = self.pipeline.begin(now, deadline=deadline, idempotent=idempotent)
        return call, self.hedged.copies(call, now)

    def next_copy(self, copies: Copies) -> Call:
        """The next copy, when it is due."""
        due = copies.due
        assert due is not None
        self.clock.advance(max(0.0, due - self.clock.now()))
        copy = copies.another(self.clock.now())
        assert copy is not None
        return copy


@contextmanager
def hedged(policy: str, *addresses: str, every: str = "default: {}") -> Iterator[HedgedService]:
    """``every``: the policy of the namespace, which may say how much is tried again, where ``policy`` says hedge."""
    with FakeMesh() as mesh:
        mesh.add("orders", *(addresses or THREE))
        mesh.policy("*", every)
        yield HedgedService(mesh, policy)
