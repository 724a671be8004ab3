"""Sessions and the mass-failure guard, played together as a replica does, without a clock or a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.core.guard import Guard, GuardSettings
from controlplane.core.model import Kind, Ref, ServiceName
from controlplane.core.sessions import Session, Sessions
from tests.scenarios.transcript import Command, check

HERE = Path(__file__).parent / "sessions"
RETRY, REJUDGE = 1.0, 0.5


class Replica:
    """One replica's sessions; ``tick`` is time, a store that may be away takes endings."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sessions = Sessions(grace=0.5, window=6.0)
        self.guard = Guard(GuardSettings())
        self.services: dict[int, frozenset[ServiceName]] = {}
        self.streams: dict[int, Session] = {}
        self.store_away = False
        self.protected: dict[ServiceName, frozenset[int]] = {}

    def play(self, command: Command) -> Iterator[str]:
        match command.verb:
            case "settings":
                self.sessions = Sessions(grace=command.number("grace", 0.5), window=command.number("window", 6.0))
                self.guard = Guard(
                    GuardSettings(
                        share=command.number("share", 0.5),
                        minimum=int(command.number("minimum", 3)),
                        own_minimum=int(command.number("own", 20)),
                        memory=command.number("memory", 10.0),
                        hold=command.number("hold", 30.0),
                    )
                )
            case "open":
                for lease in self._leases(command.words[1]):
                    names = [ServiceName("default", service) for service in command.words[2:]]
                    self.services[lease] = frozenset(names)
                    self._attach(lease)
            case "resume":
                for lease in self._leases(command.words[1]):
                    self._attach(lease)
            case "adopt":
                for lease in self._leases(command.words[1]):
                    self.services[lease] = frozenset({ServiceName("default", command.words[2])})
                    self.sessions.adopt(lease, self._ref(lease), 1, self.now, command.options["from"])
            case "beat":
                for lease in self._leases(command.words[1]):
                    yield f"{lease} {'lives' if self.sessions.heard(self.streams[lease], self.now) else 'is being ended'}"
            case "break":
                for lease in self._leases(command.words[1]):
                    self.sessions.broke(self.streams[lease], self.now)
            case "store":
                self.store_away = command.words[1] == "away"
            case "oversleep":
                seconds = float(command.words[1])
                self.now += seconds
                self.sessions.overslept(self.now, seconds)
            case "tick":
                yield from self._tick(float(command.words[1]))
            case "show":
                for lease in sorted(self.services):
                    session = self.sessions.get(lease)
                    yield f"{lease} {session.state.value if session else 'gone'}"
            case unknown:
                raise AssertionError(f"no such command: {unknown}")

    def _tick(self, seconds: float) -> Iterator[str]:
        """Time passes in steps of a tenth; what is due is judged."""
        for _ in range(round(seconds * 10)):
            self.now = round(self.now + 0.1, 3)
            due = self.sessions.due(self.now)
            if not due and not self.protected:
                continue
            judgement = self.guard.judge(
                due,
                self.sessions.doubted(),
                services_of=lambda session: self.services[session.lease],
                census=lambda name: sum(name in names for names in self.services.values()),
                own=len(self.sessions),
                now=self.now,
            )
            for session in judgement.hold:
                self.sessions.hold(session, self.now + REJUDGE)
            for session in judgement.end:
                yield f"{self.now:.1f} {self._end(session)}"
            if judgement.protected != self.protected:
                for name, leases in sorted(judgement.protected.items()):
                    yield f"{self.now:.1f} protects {name}: {' '.join(map(str, sorted(leases)))}"
                if not judgement.protected:
                    yield f"{self.now:.1f} protects nothing"
                self.protected = judgement.protected

    def _end(self, session: Session) -> str:
        self.sessions.ending(session, self.now)
        if self.store_away:
            self.sessions.not_ended(session, self.now, RETRY)
            return f"cannot end {session.lease}: {session.cause.value}, the store is away"
        self.sessions.forget(session.lease)
        del self.services[session.lease]
        return f"ends {session.lease}: {session.cause.value}"

    def _attach(self, lease: int) -> None:
        self.streams[lease] = self.sessions.attach(lease, self._ref(lease), 1, self.now)

    @staticmethod
    def _ref(lease: int) -> Ref:
        return Ref(Kind.SESSION, (f"{lease:x}", "proof"))

    @staticmethod
    def _leases(word: str) -> list[int]:
        first, _, last = word.partition("-")
        return list(range(int(first), int(last or first) + 1))


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.txt")))
def test_transcript(name: str, rewrite: bool) -> None:
    check(HERE / name, Replica(), rewrite=rewrite)
