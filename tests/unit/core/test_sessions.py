"""The life of sessions: three ways of dying, and never both due and forgotten."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controlplane.core.sessions import Cause, Session, Sessions, State
from tests.unit.core.nouns import session_ref

GRACE, WINDOW, RETRY = 1.0, 6.0, 0.5


def attached(sessions: Sessions, lease: int = 1, now: float = 0.0) -> Session:
    return sessions.attach(lease, session_ref(lease), epoch=10, now=now)


def fresh() -> Sessions:
    return Sessions(grace=GRACE, window=WINDOW)


def test_a_session_that_beats_lives_for_ever() -> None:
    sessions = fresh()
    session = attached(sessions)
    for beat in range(100):
        assert sessions.heard(session, beat * WINDOW / 2)
        assert sessions.due(beat * WINDOW / 2 + 0.1) == []


def test_silence_for_a_window_makes_a_session_due_once() -> None:
    sessions = fresh()
    session = attached(sessions)
    assert sessions.due(WINDOW - 0.01) == []
    assert sessions.due(WINDOW) == [session]
    assert (session.state, session.cause) == (State.SILENT, Cause.SILENCE)
    assert sessions.due(100.0) == []


def test_a_beat_brings_a_silent_session_back() -> None:
    sessions = fresh()
    session = attached(sessions)
    assert sessions.due(WINDOW) == [session]
    assert sessions.heard(session, WINDOW + 0.1)
    assert sessions.due(2 * WINDOW) == []
    assert sessions.due(2 * WINDOW + 0.1) == [session]


def test_a_broken_stream_gives_grace() -> None:
    sessions = fresh()
    session = attached(sessions)
    sessions.broke(session, 3.0)
    assert sessions.due(3.0 + GRACE - 0.01) == []
    assert sessions.due(3.0 + GRACE) == [session]
    assert session.cause is Cause.STREAM_BROKEN


def test_a_session_that_comes_back_in_grace_is_a_new_one_and_its_old_stream_has_no_say() -> None:
    sessions = fresh()
    old = attached(sessions)
    sessions.broke(old, 3.0)
    new = sessions.attach(old.lease, old.ref, 11, 3.5)
    assert sessions.get(old.lease) is new
    assert sessions.due(3.0 + GRACE) == []
    sessions.heard(old, 8.0)
    assert sessions.due(3.5 + WINDOW) == [new]


def test_breaking_twice_does_not_lengthen_the_grace() -> None:
    sessions = fresh()
    session = attached(sessions)
    sessions.broke(session, 1.0)
    sessions.broke(session, 1.5)
    assert sessions.due(1.0 + GRACE) == [session]


def test_a_session_that_is_ending_is_neither_renewed_nor_due_nor_alive() -> None:
    sessions = fresh()
    session = attached(sessions)
    sessions.broke(session, 0.0)
    sessions.ending(session, 0.5)
    assert sessions.renewable() == []
    assert sessions.due(100.0) == []
    assert not sessions.heard(session, 0.6)
    assert sessions.doubted() == []


def test_an_end_that_the_store_did_not_take_is_due_again_and_uncertain() -> None:
    sessions = fresh()
    session = attached(sessions)
    sessions.ending(session, 1.0)
    sessions.not_ended(session, 1.2, RETRY)
    assert session.uncertain
    assert sessions.renewable() == [session.lease]
    assert sessions.due(1.2 + RETRY) == [session]


def test_a_silent_session_that_could_not_be_ended_comes_back_with_a_beat() -> None:
    sessions = fresh()
    session = attached(sessions)
    assert sessions.due(WINDOW) == [session]
    sessions.ending(session, WINDOW)
    sessions.not_ended(session, WINDOW + 1.0, RETRY)
    assert session.state is State.SILENT
    assert sessions.heard(session, WINDOW + 1.1)
    assert sessions.due(WINDOW + 1.0 + RETRY) == []


def test_who_could_not_be_heard_is_not_called_silent() -> None:
    sessions = fresh()
    live, broken = attached(sessions, 1), attached(sessions, 2)
    sessions.broke(broken, 0.5)
    sessions.overslept(100.0, 99.0)
    assert sessions.due(100.0) == []
    assert sessions.due(100.0 + GRACE) == [broken]
    assert sessions.due(99.0 + WINDOW) == [live]


def test_a_held_session_is_due_again_when_its_time_is_up() -> None:
    sessions = fresh()
    session = attached(sessions)
    sessions.broke(session, 0.0)
    assert sessions.due(GRACE) == [session]
    sessions.hold(session, 2.0)
    assert sessions.due(1.99) == []
    assert sessions.due(2.0) == [session]


def test_an_adopted_session_is_due_at_once_and_named_by_its_owner() -> None:
    sessions = fresh()
    session = sessions.adopt(1, session_ref(1), 10, 5.0, "dead-replica")
    assert sessions.adopted() == [session]
    assert sessions.due(5.0) == [session]
    assert sessions.renewable() == [1]
    assert not attached(sessions, 1, 6.0).owner
    assert sessions.adopted() == []


class SessionsMachine(RuleBasedStateMachine):
    """Any history of beats, breaks, endings and time, against a model that knows when each session must be due."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions = fresh()
        self.now = 0.0
        self.model: dict[int, Session] = {}
        self.must_be_due: dict[int, float] = {}  # lease → the latest time at which it must be handed out
        self.next_lease = 0

    @rule()
    def attach(self) -> None:
        self.next_lease += 1
        self._own(self.next_lease)

    def _own(self, lease: int) -> None:
        self.model[lease] = self.sessions.attach(lease, session_ref(lease), self.next_lease, self.now)
        self.must_be_due[lease] = self.now + WINDOW

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        lease = self._any(data)
        session = self.model[lease]
        alive = self.sessions.heard(session, self.now)
        assert alive is (session.state is State.LIVE)
        if alive:
            self.must_be_due[lease] = self.now + WINDOW

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def break_stream(self, data: st.DataObject) -> None:
        lease = self._any(data)
        session = self.model[lease]
        if session.state in {State.LIVE, State.SILENT}:
            self.must_be_due[lease] = self.now + GRACE
        self.sessions.broke(session, self.now)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        self._own(self._any(data))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), ended=st.booleans())
    def end(self, data: st.DataObject, ended: bool) -> None:
        lease = self._any(data)
        session = self.model[lease]
        self.sessions.ending(session, self.now)
        assert lease not in self.sessions.renewable()
        if ended:
            self.sessions.forget(lease)
            del self.model[lease]
            del self.must_be_due[lease]
        else:
            self.sessions.not_ended(session, self.now, RETRY)
            self.must_be_due[lease] = self.now + RETRY

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        lease = self._any(data)
        self.sessions.forget(lease)
        del self.model[lease]
        del self.must_be_due[lease]

    @rule(step=st.sampled_from([0.1, 0.4, 1.0, 3.0, 6.0]), hold=st.booleans())
    def time_passes(self, step: float, hold: bool) -> None:
        self.now += step
        due = self.sessions.due(self.now)
        assert len({session.lease for session in due}) == len(due)
        for session in due:
            assert self.model.get(session.lease) is session, "due, but forgotten or replaced"
            assert session.doubted
            assert self.must_be_due[session.lease] <= self.now + 1e-9, "due too early: it beat, or has grace left"
        overdue = {lease for lease, at in self.must_be_due.items() if at <= self.now}
        assert overdue == {session.lease for session in due}, "a doubted session was missed"
        for session in due:
            if hold:
                self.sessions.hold(session, self.now + RETRY)
                self.must_be_due[session.lease] = self.now + RETRY
            else:
                self.sessions.ending(session, self.now)
                self.sessions.forget(session.lease)
                del self.model[session.lease]
                del self.must_be_due[session.lease]

    @invariant()
    def every_session_is_renewed_but_those_ending(self) -> None:
        assert set(self.sessions.renewable()) == set(self.model)
        assert len(self.sessions) == len(self.model)

    def _any(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.model)))


TestSessionsMachine = SessionsMachine.TestCase
TestSessionsMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
