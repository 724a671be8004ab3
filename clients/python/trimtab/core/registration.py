"""One wanted registration, driven by the difference between what is wanted and what is stored.

At most one request of a registration is on its way, so that its answers cannot overtake each other; what changes
meanwhile is sent when the answer is there, the newest only.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.v1.mesh_pb2 import ClientMessage, Deregister, Register, Update
from trimtab.v1.types_pb2 import Instance

RETRY_BASE = 0.2
RETRY_CAP = 5.0


@dataclass(slots=True)
class Wanted:
    """A registration as its owner wants it. ``wanted`` None: gone. Generations count the owner's changes."""

    key: int
    wanted: Instance | None
    generation: int = 1
    stored: Instance | None = None
    stored_generation: int = 0
    stored_id: str = ""
    doubtful: Instance | None = None
    request_id: int = 0
    sent: Instance | None = None
    sent_generation: int = 0
    sent_at: float = 0.0
    retry_at: float = 0.0
    attempts: int = 0

    def want(self, instance: Instance | None) -> int:
        """Change what is wanted; a retry that is due later is due now. Returns the generation of this change."""
        self.wanted = instance
        self.generation += 1
        self.retry_at = 0.0
        return self.generation

    @property
    def settled(self) -> bool:
        """What is wanted is stored."""
        return self.stored_generation == self.generation

    def next_request(self, request_id: int, now: float) -> ClientMessage | None:
        """Return the request that brings what is stored nearer to what is wanted, None when none is due."""
        if self.request_id or self.settled or now < self.retry_at:
            return None
        self.sent, self.sent_generation, self.sent_at = self.wanted, self.generation, now
        if self.wanted is None:
            gone = self.stored or self.doubtful
            if gone is None:
                self.stored_generation = self.generation
                return None
            self.request_id = request_id
            # The contract tells how a server derives an id, which matters when its answer never came.
            id_ = self.stored_id or gone.id or f"{gone.address}-{gone.port}"
            return ClientMessage(
                deregister=Deregister(request_id=request_id, namespace=gone.namespace, service=gone.service, id=id_)
            )
        self.request_id = request_id
        if self.stored is None:
            return ClientMessage(register=Register(request_id=request_id, instance=self.wanted))
        update = Instance()
        update.CopyFrom(self.wanted)
        update.id = self.stored_id
        return ClientMessage(update=Update(request_id=request_id, instance=update))

    def committed(self, instance_id: str) -> None:
        """The request on its way was stored."""
        self.stored, self.stored_generation = self.sent, self.sent_generation
        self.stored_id = instance_id or self.stored_id
        self.doubtful = None
        self.request_id, self.attempts = 0, 0

    def unknown(self) -> None:
        """The server does not know the instance: it must be registered, or is gone as wanted."""
        self.stored, self.doubtful = None, None
        self.request_id = 0

    def refused(self, retry_at: float) -> None:
        """The request on its way was refused; try again at ``retry_at``."""
        self.request_id = 0
        self.attempts += 1
        self.retry_at = retry_at

    def interrupted(self) -> None:
        """The stream broke: nobody knows whether the request on its way was stored. It is sent again, it is idempotent."""
        if self.request_id and self.sent is not None:
            self.doubtful = self.sent
        self.request_id = 0
        self.retry_at = 0.0

    def lost(self) -> None:
        """The session ended with everything it held."""
        self.stored, self.stored_generation = None, 0
        self.interrupted()
        self.doubtful = None
