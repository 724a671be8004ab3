"""Keeps the sessions that this replica owns: grants, resumes, renews and ends them in the store.

Ending is guarded by the session's epoch (the revision of its record): a session that was resumed on another replica has
a new epoch, so its old replica can never end it. While the store is away nothing ends; what was due is tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.core.change import Absent, Change, Present, Unchanged, Write
from controlplane.core.guard import Guard, GuardSettings
from controlplane.core.model import Event, Kind, Protection, Ref, ServiceName, SessionRecord
from controlplane.core.resource import ResourceName
from controlplane.core.sessions import Session, Sessions
from controlplane.core.view import View
from controlplane.errors import Code, TrimtabError
from controlplane.runtime.metrics import Metrics
from controlplane.runtime.presence import Presence
from controlplane.store.ledger import Ledger

log = logging.getLogger(__name__)

_TICK = 0.05
_REJUDGE = 0.5
_RETRY = 1.0
_RENEW_TURN = 0.5
_HANDLE = re.compile(r"[0-9a-f]{1,16}\.[A-Za-z0-9_-]{22}")


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """Times in seconds; their meaning is told in ``controlplane.settings``."""

    ttl: float
    grace: float
    window: float
    adoption_grace: float
    guard: GuardSettings


def new_secret() -> str:
    """128 random bits, as the second half of a handle."""
    return secrets.token_urlsafe(16)


def session_ref(lease: int, secret: str) -> Ref:
    """Where a session's record lives. The path proves knowledge of the secret without storing it."""
    return Ref(Kind.SESSION, (f"{lease:x}", hashlib.sha256(secret.encode()).hexdigest()[:32]))


def parse_handle(handle: str) -> tuple[int, Ref]:
    """Lease and record of a handle. Raises SESSION_INVALID."""
    if not _HANDLE.fullmatch(handle):
        hint = "send back what the server gave, unchanged"
        raise TrimtabError(Code.SESSION_INVALID, "the session handle is malformed", hint=hint)
    lease, _, secret = handle.partition(".")
    return int(lease, 16), session_ref(int(lease, 16), secret)


class SessionKeeper:
    """The sessions of one replica and their three ways of dying."""

    def __init__(
        self, ledger: Ledger, view: View, presence: Presence, metrics: Metrics, settings: KeeperSettings
    ) -> None:
        self._ledger = ledger
        self._view = view
        self._presence = presence
        self._metrics = metrics
        self._settings = settings
        self._sessions = Sessions(grace=settings.grace, window=settings.window)
        self._guard = Guard(settings.guard)
        self._on_lost: dict[int, Callable[[], None]] = {}
        self._protected: dict[ServiceName, frozenset[str]] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._unsure: set[int] = set()
        self._dead_replicas: asyncio.Queue[str] = asyncio.Queue()

    # -- called by streams ------------------------------------------------------------------------------------------

    async def open(self, record: SessionRecord, on_lost: Callable[[], None]) -> tuple[Session, str]:
        """Grant a session: a lease and a record on it. Its handle is the client's secret. Store failures are raised."""
        lease, ref, epoch, handle = await self._grant(record, self._settings.ttl)
        session = self._sessions.attach(lease, ref, epoch, self._now())
        self._on_lost[lease] = on_lost
        self._metrics.sessions.set(len(self._sessions))
        return session, handle

    async def resume(self, handle: str, record: SessionRecord, on_lost: Callable[[], None]) -> Session:
        """Take a session over, from whichever replica had it, by one write whatever the number of its instances.

        Raises SESSION_LOST when it is gone, SESSION_INVALID, and store failures.
        """
        lease, ref = parse_handle(handle)
        held = self._sessions.get(lease)
        if held is not None and held.ref == ref and held.doubted:
            # It never left this replica: nothing to write, so it resumes with the store away, too.
            self._sessions.resume(held, self._now())
            self._on_lost[lease] = on_lost
            return held
        result = await self._ledger.commit(Change(expect=(Present(ref),), write=(Write(ref, record, lease),)))
        if not result.succeeded:
            raise TrimtabError(Code.SESSION_LOST, "the session has ended", hint="register again")
        session = self._sessions.attach(lease, ref, result.revision, self._now())
        self._unsure.add(lease)
        self._on_lost[lease] = on_lost
        self._metrics.sessions.set(len(self._sessions))
        return session

    def heard(self, session: Session) -> bool:
        """A heartbeat came; False when the session is being ended."""
        return self._sessions.heard(session, self._now())

    def broke(self, session: Session) -> None:
        """The session's stream is gone without a word."""
        if self._owns(session):
            self._sessions.broke(session, self._now())

    def release(self, session: Session) -> None:
        """The session moves to another replica by our own request: its lease keeps it until it is resumed there."""
        if self._owns(session):
            self._forget(session)

    async def end(self, session: Session, cause: str) -> None:
        """End a session now, unless another replica has it. Store failures are raised, and the end is tried again later."""
        if not self._owns(session):
            return
        self._sessions.ending(session, self._now())
        try:
            ended = await self._end(session)
        except TrimtabError:
            self._sessions.not_ended(session, self._now(), _RETRY)
            raise
        lost = self._on_lost.get(session.lease)
        self._forget(session)
        if ended:
            self._metrics.ended.labels(cause).inc()
            log.info("session %x ended: %s", session.lease, cause)
            if lost is not None:
                lost()

    # -- registrants without a stream -------------------------------------------------------------------------------

    async def open_detached(self, record: SessionRecord) -> str:
        """Grant a session that its registrant renews by handle, on any replica."""
        return (await self._grant(record, record.ttl))[3]

    async def renew_detached(self, handle: str) -> float:
        """Seconds left from now. Raises SESSION_LOST."""
        lease, ref = parse_handle(handle)
        if await self._ledger.read(ref) is None or not (left := (await self._ledger.store.renew([lease]))[lease]):
            raise TrimtabError(Code.SESSION_LOST, "the session has ended", hint="open a new one and register again")
        return left

    async def close_detached(self, handle: str) -> None:
        """End a session by its handle, wherever it lives. One that has ended is no error."""
        lease, ref = parse_handle(handle)
        if (await self._ledger.commit(Change(expect=(Present(ref),), remove=(ref,)))).succeeded:
            await self._ledger.store.revoke(lease)

    # -- the loops --------------------------------------------------------------------------------------------------

    async def reap(self) -> None:
        """End what is due, unless the guard holds it, until cancelled."""
        while True:
            await asyncio.sleep(_TICK)
            now = self._now()
            due = self._sessions.due(now)
            if due or self._protected:
                await self._judge(due, now)

    async def renew(self) -> None:
        """Renew every living session's lease at a third of its time, until cancelled.

        A session that came from another replica may have little time left: it is renewed at the next turn.
        """
        pace = self._settings.ttl / 3
        turn = min(_RENEW_TURN, pace)
        next_round = self._now() + pace
        while True:
            await asyncio.sleep(turn)
            whole_round = self._now() >= next_round
            leases = (
                self._sessions.renewable()
                if whole_round
                else [lease for lease in self._unsure if self._sessions.get(lease)]
            )
            self._unsure.clear()
            if whole_round:
                next_round = self._now() + pace
            if leases:
                await self._renew(leases)

    def stepped(self, revision: int, names: frozenset[ResourceName], events: list[Event]) -> None:
        """Watch for replicas that die (a listener of the reconciler)."""
        for event in events:
            if event.ref.kind is Kind.REPLICA and event.stored is None:
                self._dead_replicas.put_nowait(event.ref.path[0])

    async def adopt(self) -> None:
        """Give the sessions of replicas that died a bounded time to be resumed anywhere, then end them.

        Every replica does so; the epoch makes that harmless. The first round covers replicas that died unseen.
        """
        await self._adopt(None)
        while True:
            await self._adopt(await self._dead_replicas.get())

    # -- inside -----------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _owns(self, session: Session) -> bool:
        return self._sessions.get(session.lease) is session

    def _forget(self, session: Session) -> None:
        self._sessions.forget(session.lease)
        self._on_lost.pop(session.lease, None)
        self._metrics.sessions.set(len(self._sessions))

    async def _renew(self, leases: list[int]) -> None:
        try:
            left = await self._ledger.store.renew(leases)
        except TrimtabError as error:
            log.warning("leases could not be renewed, trying again: %s", error)
            self._unsure.update(leases)
            return
        for lease, seconds in left.items():
            session = self._sessions.get(lease)
            if seconds <= 0 and session is not None:
                lost = self._on_lost.get(lease)
                self._forget(session)
                self._metrics.ended.labels("lease ran out").inc()
                log.warning("session %x: its lease had run out", lease)
                if lost is not None:
                    lost()

    async def _grant(self, record: SessionRecord, ttl: float) -> tuple[int, Ref, int, str]:
        lease = await self._ledger.store.grant(ttl)
        secret = new_secret()
        ref = session_ref(lease, secret)
        result = await self._ledger.commit(Change(expect=(Absent(ref),), write=(Write(ref, record, lease),)))
        return lease, ref, result.revision, f"{lease:x}.{secret}"

    async def _end(self, session: Session) -> bool:
        change = Change(expect=(Unchanged(session.ref, session.epoch),), remove=(session.ref,))
        result = await self._ledger.commit(change, read=(session.ref,))
        if not result.succeeded and session.ref in result.current:
            log.info("session %x lives on another replica", session.lease)
            return False
        # The record is gone, by this commit or by an earlier one whose answer was lost: nobody can resume it any more.
        await self._ledger.store.revoke(session.lease)
        return True

    async def _judge(self, due: list[Session], now: float) -> None:
        judgement = self._guard.judge(
            due,
            self._sessions.doubted(),
            services_of=self._services_of,
            census=self._view.session_count,
            own=len(self._sessions),
            now=now,
        )
        for session in judgement.hold:
            self._sessions.hold(session, now + _REJUDGE)
        for session in judgement.end:
            self._sessions.ending(session, now)
            task = asyncio.create_task(self._end_due(session), name=f"end session {session.lease:x}")
            self._endings.add(task)
            task.add_done_callback(self._endings.discard)
        await self._publish_protection(judgement.protected)

    async def _end_due(self, session: Session) -> None:
        try:
            await self.end(session, session.cause.value)
        except TrimtabError as error:
            log.warning("session %x could not be ended, trying again: %s", session.lease, error)

    def _services_of(self, session: Session) -> frozenset[ServiceName]:
        return frozenset(ServiceName(*ref.path[:2]) for ref in self._view.on_lease(session.lease))

    async def _publish_protection(self, protected: dict[ServiceName, frozenset[int]]) -> None:
        wanted = {name: self._suspects(name, leases) for name, leases in protected.items()}
        if wanted == self._protected or not self._presence.lease:
            return
        replica, lease = self._presence.id, self._presence.lease
        writes, removes = [], []
        for name in wanted.keys() | self._protected.keys():
            if wanted.get(name) == self._protected.get(name):
                continue
            ref = Ref(Kind.PROTECTION, (*name, replica))
            if name in wanted:
                claim = Protection(replica, tuple(sorted(wanted[name])), "too many sessions broke at once")
                writes.append(Write(ref, claim, lease))
                log.warning("%s is protected: %d of its instances are suspect", name, len(wanted[name]))
            else:
                removes.append(ref)
                log.warning("%s is no longer protected", name)
        try:
            await self._ledger.commit(
                Change(expect=(Present(self._presence.ref),), write=tuple(writes), remove=tuple(removes))
            )
        except TrimtabError as error:
            log.warning("protection could not be published, trying again: %s", error)
            return
        self._protected = wanted
        self._metrics.protected.set(len(wanted))

    def _suspects(self, name: ServiceName, leases: frozenset[int]) -> frozenset[str]:
        return frozenset(
            ref.path[2] for lease in leases for ref in self._view.on_lease(lease) if ref.path[:2] == tuple(name)
        )

    async def _adopt(self, dead: str | None) -> None:
        """Adopt what replica ``dead`` left; None: what any replica left that is not alive now."""
        try:
            found = await self._ledger.sessions()
        except TrimtabError as error:
            log.warning("sessions of dead replicas could not be listed, trying again: %s", error)
            await asyncio.sleep(_RETRY)
            self._dead_replicas.put_nowait(dead or "")
            return
        alive = {replica.id for replica in self._view.replicas()} | {self._presence.id}
        adopted = 0
        for stored in found:
            assert isinstance(stored.record, SessionRecord)
            owner = stored.record.replica
            if owner and owner not in alive and self._sessions.get(stored.lease) is None:
                self._sessions.adopt(
                    stored.lease, stored.ref, stored.revision, self._now(), self._settings.adoption_grace
                )
                self._unsure.add(stored.lease)
                adopted += 1
        if adopted:
            log.info("adopted %d sessions of %s", adopted, f"replica {dead}" if dead else "replicas that are gone")
