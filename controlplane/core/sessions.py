"""The life of the sessions that one replica owns: when each is renewed, given grace, doubted, and ended.

A session is one client process and one lease. Three ways of dying: goodbye (at once), a stream that broke and was not
resumed within ``grace``, and silence for ``window`` on a stream that is still open. Ending is never decided alone: what is
due goes through the mass-failure guard (``core.guard``), which may hold it.

Time is an argument in seconds of one monotonic clock. Deadlines live in a heap and are corrected lazily, so a
heartbeat costs one assignment.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush

from controlplane.core.model import Ref


class State(Enum):
    """``LIVE`` beats; ``BROKEN`` lost its stream; ``SILENT`` has one but does not beat; ``ENDING`` is being revoked."""

    LIVE = "live"
    BROKEN = "broken"
    SILENT = "silent"
    ENDING = "ending"


class Cause(Enum):
    """Why a session is due to end."""

    STREAM_BROKEN = "stream broken"
    SILENCE = "silence"


@dataclass(slots=True, eq=False)
class Session:
    """One session as its replica sees it. ``epoch`` is the store revision of the session record's last write."""

    lease: int
    ref: Ref
    epoch: int
    last_heard: float
    state: State = State.LIVE
    since: float = 0.0
    armed: int = 0  # number of its latest deadline; earlier ones are void
    # The replica that left it, when it was adopted; empty: it is our own.
    owner: str = ""
    # An end was begun and nobody knows what became of it: only the store can tell whether the session stands.
    uncertain: bool = False
    doubt: State = State.BROKEN  # what it was doubted for before its end began

    @property
    def cause(self) -> Cause:
        """Why it is doubted."""
        doubt = self.doubt if self.state is State.ENDING else self.state
        return Cause.SILENCE if doubt is State.SILENT else Cause.STREAM_BROKEN

    @property
    def doubted(self) -> bool:
        """Broken or silent: it may be dead, or only cut off."""
        return self.state in {State.BROKEN, State.SILENT}


class Sessions:
    """The sessions of one replica."""

    def __init__(self, *, grace: float, window: float) -> None:
        self.grace = grace
        self.window = window
        self._by_lease: dict[int, Session] = {}
        self._deadlines: list[tuple[float, int, int]] = []
        self._pushes = 0

    def __len__(self) -> int:
        return len(self._by_lease)

    def get(self, lease: int) -> Session | None:
        """The session of that lease, when this replica owns it."""
        return self._by_lease.get(lease)

    def attach(self, lease: int, ref: Ref, epoch: int, now: float, *, uncertain: bool = False) -> Session:
        """Own a session that was granted or resumed here, in place of what was known of it: the stream that it left has no
        say any more.
        """
        session = self._by_lease[lease] = Session(lease, ref, epoch, now, since=now, uncertain=uncertain)
        self._arm(session, now + self.window)
        return session

    def adopt(self, lease: int, ref: Ref, epoch: int, now: float, owner: str) -> Session:
        """Own a session that replica ``owner`` left and nobody resumed in time: it is due."""
        session = self._by_lease[lease] = Session(lease, ref, epoch, now, State.BROKEN, now, owner=owner)
        self._arm(session, now)
        return session

    def heard(self, session: Session, now: float) -> bool:
        """A heartbeat came. Whether the session lives: False when it is being ended."""
        session.last_heard = now
        if session.state is State.SILENT:
            self._enter(session, State.LIVE, now)
            self._arm(session, now + self.window)
        return session.state is State.LIVE

    def broke(self, session: Session, now: float) -> None:
        """Its stream is gone, unannounced."""
        if session.state in {State.LIVE, State.SILENT}:
            self._enter(session, State.BROKEN, now)
            self._arm(session, now + self.grace)

    def ending(self, session: Session, now: float) -> None:
        """It is being revoked; nothing but ``forget`` or ``not_ended`` leads out of here."""
        if session.state is not State.ENDING:
            session.doubt = State.SILENT if session.state is State.SILENT else State.BROKEN
        session.state = State.ENDING

    def not_ended(self, session: Session, now: float, retry: float) -> None:
        """The store was away: it is broken or silent as before, and due again after ``retry``."""
        session.uncertain = True
        session.state = session.doubt  # and doubted since then: trying must not lengthen what the guard may hold
        self._arm(session, now + retry)

    def hold(self, session: Session, until: float) -> None:
        """Judged and held: due again at ``until``."""
        self._arm(session, until)

    def forget(self, lease: int) -> None:
        """Own it no longer: it was ended, moved to another replica, or is handed to its lease's own end."""
        self._by_lease.pop(lease, None)

    def due(self, now: float) -> list[Session]:
        """The doubted sessions whose time has come. Each is returned once, until it is armed again."""
        found = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number, lease = heappop(self._deadlines)
            session = self._by_lease.get(lease)
            if session is None or session.armed != number or session.state is State.ENDING:
                continue
            if session.state is State.LIVE:
                if session.last_heard + self.window > now:
                    self._arm(session, session.last_heard + self.window)
                    continue
                self._enter(session, State.SILENT, now)
            found.append(session)
        return found

    def doubted(self) -> list[Session]:
        """Every session that is broken or silent now."""
        return [session for session in self._by_lease.values() if session.doubted]

    def late(self, now: float) -> list[Session]:
        """Living sessions that have been silent for half the window: those that stopped together are not due together,
        because each beats at a time of its own.
        """
        return [s for s in self._by_lease.values() if s.state is State.LIVE and s.last_heard + self.window / 2 < now]

    def overslept(self, now: float, seconds: float) -> None:
        """This process did not run for ``seconds``: nobody could be heard, so everybody gets that time on top."""
        for session in self._by_lease.values():
            session.last_heard = min(now, session.last_heard + seconds)
            if session.doubted:
                session.since = min(now, session.since + seconds)
                self._arm(session, now + self.grace)

    def adopted(self) -> list[Session]:
        """Every session that another replica left."""
        return [session for session in self._by_lease.values() if session.owner]

    def renewable(self) -> list[int]:
        """Leases to renew: all but those being ended. Doubt is the guard's business, not the lease's."""
        return [lease for lease, session in self._by_lease.items() if session.state is not State.ENDING]

    @staticmethod
    def _enter(session: Session, state: State, now: float) -> None:
        session.state = state
        session.since = now

    def _arm(self, session: Session, deadline: float) -> None:
        self._pushes += 1  # breaks ties, too: the heap never compares further
        session.armed = self._pushes
        heappush(self._deadlines, (deadline, self._pushes, session.lease))
