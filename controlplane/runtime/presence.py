"""This replica's own record in the mesh, on a lease of its own: how replicas know of each other."""

from __future__ import annotations

import asyncio
import logging

from controlplane.core.change import Change, Write
from controlplane.core.model import Kind, Ref, Replica
from controlplane.errors import TrimtabError
from controlplane.runtime.backoff import Backoff
from controlplane.store.ledger import Ledger

log = logging.getLogger(__name__)


class Presence:
    """Announces a replica until it is withdrawn. ``lease`` is 0 until the first announcement."""

    def __init__(self, ledger: Ledger, id: str, *, ttl: float) -> None:
        self._ledger = ledger
        self._ttl = ttl
        self.id = id
        self.ref = Ref(Kind.REPLICA, (id,))
        self.lease = 0

    async def run(self, replica: Replica) -> None:
        """Announce and renew until cancelled; announce again when the lease was lost."""
        backoff = Backoff()
        while True:
            try:
                if not self.lease:
                    await self._announce(replica)
                await asyncio.sleep(self._ttl / 3)
                if not (await self._ledger.store.renew([self.lease]))[self.lease]:
                    log.warning("replica %s was thought dead: announcing it again", self.id)
                    self.lease = 0
                backoff.reset()
            except TrimtabError as error:
                log.warning("replica %s cannot reach the store: %s", self.id, error)
                await backoff.wait()

    async def withdraw(self) -> None:
        """Leave the mesh. Store failures are raised; the lease then runs out by itself."""
        if self.lease:
            await self._ledger.store.revoke(self.lease)

    async def _announce(self, replica: Replica) -> None:
        lease = await self._ledger.store.grant(self._ttl)
        await self._ledger.commit(Change(write=(Write(self.ref, replica, lease),)))
        self.lease = lease
