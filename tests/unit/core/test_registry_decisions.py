"""Each decision of the registry: what must hold, what is written, or which refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.core import registry
from controlplane.core.change import Absent, Change, Present, Unchanged, Write
from controlplane.core.model import ConfigFile, Desired, InstanceState, Stored
from controlplane.errors import Code, TrimtabError
from tests.unit.core.nouns import config_ref, desired_ref, held, instance, session_ref, stored

MINE, OTHERS = 7, 8
SESSION = session_ref(MINE)
A = instance("a")
MOVED = replace(A, port=9000)
HEAVIER = replace(A, weight=200)


@pytest.mark.parametrize(
    ("current", "wanted", "expected"),
    [
        (None, A, Change((Absent(A.ref), Present(SESSION)), (Write(A.ref, A, MINE),))),
        (held(A, lease=MINE), A, Change()),
        (held(A, lease=MINE), HEAVIER, Change((Unchanged(A.ref, 5), Present(SESSION)), (Write(A.ref, HEAVIER, MINE),))),
        (held(A, lease=MINE), MOVED, Change((Unchanged(A.ref, 5), Present(SESSION)), (Write(A.ref, MOVED, MINE),))),
        (held(A, lease=OTHERS), A, Change((Unchanged(A.ref, 5), Present(SESSION)), (Write(A.ref, A, MINE),))),
        (held(HEAVIER, lease=0), A, Change((Unchanged(A.ref, 5), Present(SESSION)), (Write(A.ref, A, MINE),))),
        (held(A, lease=OTHERS), MOVED, Code.INSTANCE_DUPLICATE),
    ],
    ids=[
        "new",
        "the same again",
        "the same instance with another weight",
        "the same session elsewhere",
        "an earlier life at the same address",
        "a record without a session at the same address",
        "another session's, elsewhere",
    ],
)
def test_register(current: Stored | None, wanted: object, expected: Change | Code) -> None:
    assert isinstance(wanted, type(A))

    def decide() -> Change:
        return registry.register(wanted, session=SESSION, lease=MINE, current=current)

    check(decide, expected)


@pytest.mark.parametrize(
    ("current", "wanted", "expected"),
    [
        (None, A, Code.INSTANCE_NOT_FOUND),
        (held(A, lease=OTHERS), HEAVIER, Code.INSTANCE_NOT_FOUND),
        (held(A, lease=MINE), MOVED, Code.INVALID),
        (held(A, lease=MINE), A, Change()),
        (
            held(A, lease=MINE),
            replace(A, state=InstanceState.DRAINING),
            Change(
                (Unchanged(A.ref, 5), Present(SESSION)), (Write(A.ref, replace(A, state=InstanceState.DRAINING), MINE),)
            ),
        ),
    ],
    ids=["never registered", "another session's", "it cannot move", "the same again", "it drains itself"],
)
def test_update(current: Stored | None, wanted: object, expected: Change | Code) -> None:
    assert isinstance(wanted, type(A))
    check(lambda: registry.update(wanted, session=SESSION, lease=MINE, current=current), expected)


@pytest.mark.parametrize(
    ("current", "expected"),
    [
        (None, Change()),
        (held(A, lease=OTHERS), Code.INSTANCE_NOT_FOUND),
        (held(A, lease=MINE), Change((Unchanged(A.ref, 5), Present(SESSION)), remove=(A.ref,))),
    ],
    ids=["gone already", "another session's", "mine"],
)
def test_deregister(current: Stored | None, expected: Change | Code) -> None:
    check(lambda: registry.deregister(A.ref, session=SESSION, lease=MINE, current=current), expected)


WANTED = desired_ref("a")
DRAIN, NEUTRAL = Desired(drain=True, by="me"), Desired(by="me")


@pytest.mark.parametrize(
    ("current", "wanted", "expected"),
    [
        (None, NEUTRAL, Change()),
        (None, DRAIN, Change((Absent(WANTED),), (Write(WANTED, DRAIN),))),
        (None, Desired(weight=0), Change((Absent(WANTED),), (Write(WANTED, Desired(weight=0)),))),
        (stored(DRAIN, WANTED), replace(DRAIN, by="you"), Change()),
        (stored(DRAIN, WANTED), NEUTRAL, Change((Unchanged(WANTED, 5),), remove=(WANTED,))),
        (
            stored(DRAIN, WANTED),
            replace(DRAIN, weight=3),
            Change((Unchanged(WANTED, 5),), (Write(WANTED, replace(DRAIN, weight=3)),)),
        ),
    ],
    ids=["no opinion", "drain", "no traffic at all", "the same by another hand", "no opinion any more", "one more"],
)
def test_desire(current: Stored | None, wanted: Desired, expected: Change) -> None:
    check(lambda: registry.desire(WANTED, wanted, current=current), expected)


FILE = ConfigFile("text", b"1", "me")
PLACE = config_ref()


@pytest.mark.parametrize(
    ("current", "wanted", "expected"),
    [
        (None, FILE, Change((Absent(PLACE),), (Write(PLACE, FILE),))),
        (stored(FILE, PLACE), replace(FILE, author="you"), Change()),
        (
            stored(FILE, PLACE),
            replace(FILE, content=b"2"),
            Change((Unchanged(PLACE, 5),), (Write(PLACE, replace(FILE, content=b"2")),)),
        ),
    ],
    ids=["first", "the same content", "another"],
)
def test_release(current: Stored | None, wanted: ConfigFile, expected: Change) -> None:
    check(lambda: registry.release(PLACE, wanted, current=current), expected)


def test_withdraw_removes_what_is_there_and_nothing_else() -> None:
    assert registry.withdraw(PLACE, current=None) == Change()
    assert registry.withdraw(PLACE, current=stored(FILE, PLACE)) == Change((Unchanged(PLACE, 5),), remove=(PLACE,))


def check(decide: object, expected: Change | Code) -> None:
    assert callable(decide)
    if isinstance(expected, Change):
        assert decide() == expected
        return
    with pytest.raises(TrimtabError) as caught:
        decide()
    assert caught.value.code is expected
    assert caught.value.hint
