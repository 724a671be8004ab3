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
from typing import Any

from controlplane.core.change import Absent, Change, Expectation, Present, Unchanged, Write
from controlplane.core.guard import Guard, GuardSettings
from controlplane.core.model import Event, Kind, Protection, Ref, ServiceName, SessionRecord, Stored
from controlplane.core.resource import ResourceName
from controlplane.core.sessions import Cause, Session, Sessions, State
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
_ADOPT = 1.0
_OVERSLEPT = 0.5
_CLAIMS_AT_ONCE = 100  # etcd refuses transactions of more than 128 operations
_MAX_LEASE = 2**63 - 1  # a lease id is a signed number of 64 bits, and never 0
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
    hint = "send back what the server gave, unchanged"
    if not _HANDLE.fullmatch(handle):
        raise TrimtabError(Code.SESSION_INVALID, "the session handle is malformed", hint=hint)
    digits, _, secret = handle.partition(".")
    lease = int(digits, 16)
    if not 0 < lease <= _MAX_LEASE:
        raise TrimtabError(Code.SESSION_INVALID, "the session handle names no lease", hint=hint)
    return lease, session_ref(lease, secret)


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
        self._protected_on = 0  # the lease on which the claims hang
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unsure: dict[int, float] = {}  # leases to renew out of turn, and when
        self._replicas: set[str] = set()
        self._gone: dict[str, float] = {}
        self._settles_at = self._now() + settings.ttl / 3
        metrics.sessions.set_function(lambda: len(self._sessions))

    # -- called by streams ------------------------------------------------------------------------------------------

    async def open(self, record: SessionRecord, on_lost: Callable[[], None]) -> tuple[Session, str]:
        """Grant a session: a lease and a record on it. Its handle is the client's secret. Store failures are raised."""
        lease, ref, epoch, handle = await self._grant(record, self._settings.ttl)
        session = self._sessions.attach(lease, ref, epoch, self._now())
        self._on_lost[lease] = on_lost
        return session, handle

    async def resume(self, handle: str, record: SessionRecord, on_lost: Callable[[], None]) -> Session:
        """Take a session over, from whichever replica had it, by one write whatever the number of its instances.

        To be awaited to its end, whoever has gone meanwhile: a session that the store has given us is ours to end.
        Raises SESSION_LOST when it is gone, SESSION_INVALID, and store failures.
        """
        lease, ref = parse_handle(handle)
        mine = self._sessions.get(lease)
        if mine is not None and mine.ref == ref:
            # Its client lives, whatever the store says next: neither its old stream nor an end under way may go on.
            uncertain = mine.uncertain or mine.state is State.ENDING or bool(mine.owner)
            mine = self._sessions.attach(lease, ref, mine.epoch, self._now(), uncertain=uncertain)
            self._on_lost[lease] = on_lost
        else:
            mine = None
        try:
            result = await self._ledger.commit(Change(expect=(Present(ref),), write=(Write(ref, record, lease),)))
            lost = not result.succeeded
        except TrimtabError as error:
            lost = error.code is Code.SESSION_LOST
            if not lost and mine is not None and not mine.uncertain and self._owns(mine):
                return mine  # it never left this replica, so it resumes with the store away, too
            if not lost:
                raise
        if lost:
            if mine is not None and self._owns(mine):
                self._forget(mine)
            raise TrimtabError(Code.SESSION_LOST, "the session has ended", hint="register again")
        session = self._sessions.attach(lease, ref, result.revision, self._now())
        self._unsure[lease] = self._renewal_after_resuming()
        self._on_lost[lease] = on_lost
        return session

    def heard(self, session: Session) -> bool:
        """A heartbeat came; False when the session is being ended."""
        alive = self._sessions.heard(session, self._now())
        if alive and session.uncertain and self._owns(session):
            session.uncertain = False
            self._track(asyncio.create_task(self._ascertain(session), name=f"ascertain session {session.lease:x}"))
        return alive

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
            if self._owns(session):
                self._sessions.not_ended(session, self._now(), _RETRY)
            raise
        if not self._owns(session):
            return  # resumed here meanwhile: the store told that stream whether it came in time
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
        rejudge = 0.0
        while True:
            slept_at = self._now()
            await asyncio.sleep(_TICK)
            now = self._now()
            if now - slept_at > _OVERSLEPT:
                log.warning("this process stood still for %.1f s: nobody is called silent for that", now - slept_at)
                self._sessions.overslept(now, now - slept_at)
                continue
            due = self._sessions.due(now)
            if due or (self._protected and now >= rejudge):
                await self._judge(due, now)
                rejudge = now + _REJUDGE

    async def renew(self) -> None:
        """Renew every living session's lease at a third of its time, until cancelled.

        A session that came from another replica may have little time left: it is not left until then.
        """
        pace = self._settings.ttl / 3
        turn = min(_RENEW_TURN, pace)
        next_round = self._now() + pace
        while True:
            await asyncio.sleep(turn)
            if self._now() >= next_round:
                leases = self._sessions.renewable()
                self._unsure.clear()
                next_round = self._now() + pace
            else:
                leases = self._take_unsure()
            if leases:
                await self._renew(leases)

    def stepped(self, revision: int, names: frozenset[ResourceName], events: list[Event]) -> None:
        """Watch for replicas that go and come (a listener of the reconciler)."""
        if not any(event.ref.kind is Kind.REPLICA for event in events):
            return
        alive = self._alive()
        for replica in self._replicas - alive:
            self._gone.setdefault(replica, self._now())
        if back := alive & self._gone.keys():
            self._gone = {replica: at for replica, at in self._gone.items() if replica not in back}
            for session in self._sessions.adopted():
                if session.owner in back and session.state is not State.ENDING:
                    self._forget(session)
        self._replicas = alive

    async def adopt(self) -> None:
        """Give the sessions of replicas that are gone a bounded time to be resumed anywhere, then end them, until cancelled.

        Every replica does so; the epoch makes that harmless. One that comes back keeps its sessions. The first look covers
        replicas that went unseen.
        """
        first = True
        while True:
            try:
                if first or self._overdue():
                    await self._adopt(first)
                    first = False
            except TrimtabError as error:
                log.warning("sessions of replicas that are gone could not be listed, trying again: %s", error)
            await asyncio.sleep(_ADOPT)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _owns(self, session: Session) -> bool:
        return self._sessions.get(session.lease) is session

    def _track(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _alive(self) -> set[str]:
        return {replica.id for replica in self._view.replicas()} | {self._presence.id}

    async def _ascertain(self, session: Session) -> None:
        """A session that beats again after an end was begun: ask the store whether it stands."""
        try:
            stored = await self._ledger.read(session.ref)
        except TrimtabError as error:
            log.debug("session %x is still uncertain: %s", session.lease, error)
            session.uncertain = True
            return
        if not self._owns(session):
            return
        if stored is not None and stored.revision == session.epoch:
            return
        lost = self._on_lost.get(session.lease)
        self._forget(session)
        if stored is None and lost is not None:
            lost()

    def _take_unsure(self) -> list[int]:
        """Those whose time to be renewed out of turn has come."""
        now = self._now()
        due = [lease for lease, at in self._unsure.items() if at <= now]
        for lease in due:
            del self._unsure[lease]
        return [lease for lease in due if self._sessions.get(lease)]

    def _renewal_after_resuming(self) -> float:
        """When to renew a session that was resumed here. In a storm the last ones want to resume first.

        A replica that has been here for a while has seen the others go and ended what they left, so what is resumed on
        it has a third of its time left at least (with the default settings), and can wait for a twelfth. One that has
        just started may be the first that these sessions have found for long.
        """
        now = self._now()
        return now if now < self._settles_at else now + self._settings.ttl / 12

    def _forget(self, session: Session) -> None:
        self._sessions.forget(session.lease)
        self._on_lost.pop(session.lease, None)

    async def _renew(self, leases: list[int]) -> None:
        try:
            left = await self._ledger.store.renew(leases)
        except TrimtabError as error:
            log.warning("leases could not be renewed, trying again: %s", error)
            self._unsure.update(dict.fromkeys(leases, self._now()))
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
        while True:
            expect: tuple[Expectation, ...] = (Unchanged(session.ref, session.epoch),)
            if session.owner:
                expect += (Absent(Ref(Kind.REPLICA, (session.owner,))),)
            result = await self._ledger.commit(Change(expect=expect, remove=(session.ref,)), read=(session.ref,))
            current = result.current.get(session.ref)
            if result.succeeded or current is None:
                break
            assert isinstance(current.record, SessionRecord)
            if current.record.replica != self._presence.id or not self._owns(session):
                log.info("session %x lives on replica %s", session.lease, current.record.replica)
                return False
            session.epoch = current.revision  # our own write, whose answer was lost
        # The record is gone, by this commit or by an earlier one whose answer was lost: nobody can resume it any more.
        await self._ledger.store.revoke(session.lease)
        return True

    async def _judge(self, due: list[Session], now: float) -> None:
        judgement = self._guard.judge(
            due,
            [*self._sessions.doubted(), *self._sessions.late(now)],
            services_of=self._services_of,
            census=lambda name: self._view.session_count(name, without=self._guard.ended),
            own=len(self._sessions.renewable()),
            now=now,
        )
        for session in judgement.hold:
            self._sessions.hold(session, now + _REJUDGE)
        for session in judgement.end:
            cause = session.cause  # its state tells it no longer once it is ending
            self._sessions.ending(session, now)
            self._track(asyncio.create_task(self._end_due(session, cause), name=f"end session {session.lease:x}"))
        await self._publish_protection(judgement.protected)

    async def _end_due(self, session: Session, cause: Cause) -> None:
        try:
            await self.end(session, cause.value)
        except TrimtabError as error:
            log.warning("session %x could not be ended, trying again: %s", session.lease, error)

    def _services_of(self, session: Session) -> frozenset[ServiceName]:
        return frozenset(ServiceName(*ref.path[:2]) for ref in self._view.on_lease(session.lease))

    async def _publish_protection(self, protected: dict[ServiceName, frozenset[int]]) -> None:
        wanted = {name: self._suspects(name, leases) for name, leases in protected.items()}
        replica, lease = self._presence.id, self._presence.lease
        if lease != self._protected_on:
            self._protected = {}  # the claims went with the lease on which they hung
        changed = [
            name for name in wanted.keys() | self._protected.keys() if wanted.get(name) != self._protected.get(name)
        ]
        if not changed or not lease:
            return
        for start in range(0, len(changed), _CLAIMS_AT_ONCE):
            batch = changed[start : start + _CLAIMS_AT_ONCE]
            refs = {name: Ref(Kind.PROTECTION, (*name, replica)) for name in batch}
            reason = "too many sessions broke at once"
            writes = [
                Write(refs[name], Protection(replica, tuple(sorted(wanted[name])), reason), lease)
                for name in batch
                if name in wanted
            ]
            removes = [refs[name] for name in batch if name not in wanted]
            change = Change(expect=(Present(self._presence.ref),), write=tuple(writes), remove=tuple(removes))
            try:
                if not (await self._ledger.commit(change)).succeeded:
                    return  # this replica was thought dead: it announces itself again first
            except TrimtabError as error:
                log.warning("protection could not be published, trying again: %s", error)
                return
            self._protected_on = lease
            for name in batch:
                self._note_protection(name, wanted.get(name))
        self._metrics.protected.set(len(self._protected))

    def _note_protection(self, name: ServiceName, suspects: frozenset[str] | None) -> None:
        if suspects is None:
            del self._protected[name]
            log.warning("%s is no longer protected", name)
        else:
            self._protected[name] = suspects
            log.warning("%s is protected: %d of its instances are suspect", name, len(suspects))

    def _suspects(self, name: ServiceName, leases: frozenset[int]) -> frozenset[str]:
        return frozenset(
            ref.path[2] for lease in leases for ref in self._view.on_lease(lease) if ref.path[:2] == tuple(name)
        )

    def _overdue(self) -> list[str]:
        """Replicas that have been gone for the time of grace. Before, whose sessions they were is nobody's question."""
        due = self._now() - self._settings.adoption_grace
        return [replica for replica, at in self._gone.items() if at <= due]

    async def _adopt(self, first: bool) -> None:
        """Own what is left, and nothing more, of the replicas that have been gone for the time of grace."""
        left: dict[str, list[Stored]] = {}
        for stored in await self._ledger.sessions():
            assert isinstance(stored.record, SessionRecord)
            if stored.record.replica:
                left.setdefault(stored.record.replica, []).append(stored)
        alive, now = self._alive(), self._now()
        if first:
            for replica in left.keys() - alive:
                self._gone.setdefault(replica, now)
        self._gone = {replica: at for replica, at in self._gone.items() if replica in left}
        waited = self._overdue()
        orphans = {stored.lease: stored for replica in waited for stored in left[replica]}
        for session in self._sessions.adopted():
            now_stored = orphans.get(session.lease)
            if session.state is not State.ENDING and (now_stored is None or now_stored.revision != session.epoch):
                self._forget(session)  # its replica is back, or another one has it
        fresh = [stored for lease, stored in orphans.items() if self._sessions.get(lease) is None]
        for stored in fresh:
            assert isinstance(stored.record, SessionRecord)
            self._sessions.adopt(stored.lease, stored.ref, stored.revision, now, stored.record.replica)
            self._unsure[stored.lease] = now
        if fresh:
            log.info("adopted %d sessions of replicas that are gone: %s", len(fresh), ", ".join(sorted(waited)))
