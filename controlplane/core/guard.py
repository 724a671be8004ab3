"""The mass-failure guard: when too many sessions break at once, the fault is likelier between than in the instances.

Judged for each service and for the replica as a whole, over what is doubted now and what was ended lately. A session
is held when any of its services, or the replica, is over its threshold; holding is bounded in time, and ends by itself
when the share falls or the time is up. Nothing is falsified: what is held is shown as SUSPECT.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from controlplane.core.model import ServiceName
from controlplane.core.sessions import Session


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """``share`` of a service's sessions, at least ``minimum`` of them, lost within ``memory`` seconds is a mass failure.

    ``hold`` bounds the protection in seconds, counted from when a session became doubtful. ``own_minimum`` is the least
    number for the replica as a whole.
    """

    share: float = 0.5
    minimum: int = 3
    own_minimum: int = 20
    memory: float = 10.0
    hold: float = 30.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """``end`` now, ``hold`` for the moment, and the services under protection with the leases suspected there."""

    end: list[Session]
    hold: list[Session]
    protected: dict[ServiceName, frozenset[int]]


class Guard:
    """Remembers recent endings of one replica and judges those that are due."""

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings
        # By lease, oldest first: one whose end the store did not take is ended again, and still counts once.
        self._ended: dict[int, tuple[float, frozenset[ServiceName]]] = {}

    @property
    def ended(self) -> Collection[int]:
        """Leases ended within memory; the view may still show them for a moment."""
        return self._ended.keys()

    def judge(
        self,
        due: Collection[Session],
        doubted: Iterable[Session],
        *,
        services_of: Callable[[Session], frozenset[ServiceName]],
        census: Callable[[ServiceName], int],
        own: int,
        now: float,
    ) -> Judgement:
        """Decide on every session in ``due``.

        ``doubted``: all sessions broken, silent or late now (``due`` among them). ``census``: how many sessions stand behind a
        service, on all replicas, the doubted included, the ``ended`` not. ``own``: the same for this replica's sessions.
        """
        while self._ended and next(iter(self._ended.values()))[0] < now - self.settings.memory:
            del self._ended[next(iter(self._ended))]
        due = dict.fromkeys(due)  # looked up once per session, in the order in which it came
        services = {session: services_of(session) for session in (*doubted, *due)}
        for session in services:
            self._ended.pop(session.lease, None)
        suspects: dict[ServiceName, set[int]] = {}
        for session, names in services.items():
            for name in names:
                suspects.setdefault(name, set()).add(session.lease)
        over = {name for name, leases in suspects.items() if self._over(name, len(leases), census(name))}
        # Only sessions that carry instances count: pure readers come and go as they like.
        carrying = sum(1 for names in services.values() if names)
        all_over = self._share_over(carrying + len(self._ended), own + len(self._ended), self.settings.own_minimum)

        end, hold = [], []
        held: dict[ServiceName, set[int]] = {}
        for session, names in services.items():
            guarded = names if all_over else names & over
            if guarded and now - session.since < self.settings.hold:
                if session in due:
                    hold.append(session)
                for name in guarded:
                    held.setdefault(name, set()).add(session.lease)
            elif session in due:
                end.append(session)
                if names:
                    self._ended[session.lease] = (now, names)
        return Judgement(end, hold, {name: frozenset(leases) for name, leases in held.items()})

    def _over(self, name: ServiceName, doubted: int, census: int) -> bool:
        lately = sum(1 for _, names in self._ended.values() if name in names)
        return self._share_over(doubted + lately, census + lately, self.settings.minimum)

    def _share_over(self, lost: int, total: int, minimum: int) -> bool:
        return lost >= minimum and lost > self.settings.share * total
