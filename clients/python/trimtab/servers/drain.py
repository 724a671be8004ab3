"""When a draining server may stop, decided from what is known and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

# From the moment in which the mesh knows of the drain until no client sends new calls: a push is there in a fraction of
# this, and a call that was sent before has arrived. Seconds.
SETTLE = 1.0

# A worker that ends while its siblings go on has told nobody but the clients it answers. Longer than a mesh client keeps an
# idle connection (1.5 s), so that none is closed under a call. Seconds.
HANDOVER = 2.0

# From the moment in which a server accepts no more until what it had accepted is read and answered. Seconds.
LAST_CALLS = 0.25
LAST_CALLS_LIMIT = 2.0


@dataclass(frozen=True, slots=True)
class Drain:
    """The bounds of one drain, seconds from its start: calls are served until ``limit``, and at least for ``settle``."""

    limit: float
    settle: float = SETTLE

    def over(self, elapsed: float, in_flight: int) -> bool:
        """Whether to stop now: clients had time to learn, and nothing is being served; or time is up."""
        if elapsed >= self.limit:
            return True
        return elapsed >= self.settle and in_flight == 0
