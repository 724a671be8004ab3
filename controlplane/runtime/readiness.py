"""Whether this replica should get traffic. Never asks the store: a replica whose store is away still serves its view."""

from __future__ import annotations


class Readiness:
    """``started`` once the view was loaded for the first time; ``ready`` from then until shutdown begins."""

    def __init__(self) -> None:
        self.started = False
        self.stopping = False

    @property
    def ready(self) -> bool:
        """Whether new streams and requests are welcome."""
        return self.started and not self.stopping

    @property
    def reasons(self) -> list[str]:
        """Why not, for people."""
        found = []
        if not self.started:
            found.append("the view has not been loaded from the store yet")
        if self.stopping:
            found.append("shutting down")
        return found
