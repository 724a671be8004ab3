"""What an outage must not cost, whatever is away and for how long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from controlplane.core.model import Kind
from tests.support.town.client import Client
from tests.support.town.load import Call
from tests.support.town.process import until
from tests.support.town.town import Town


@contextmanager
def nothing_is_lost(
    town: Town, service: str, fleet: Sequence[Client], callers: Sequence[Client]
) -> Iterator[list[Call]]:
    """No call fails meanwhile; afterwards every session stands, and no instance was written. Yields all calls, at the end."""
    sessions = {member.name: member.status()["session"] for member in fleet}
    created = {id: stored.created for id, stored in town.archive.instances(service).items()}
    calls: list[Call] = []
    for caller in callers:
        calls += caller.calls()
    with town.archive.recording() as recording:
        yield calls
        until(lambda: all(each.status()["connected"] for each in (*fleet, *callers)), "all are connected")
        until(lambda: all(m.status()["session_state"] == "attached" for m in fleet), "all sessions stand")
    assert {member.name: member.status()["session"] for member in fleet} == sessions
    assert {id: stored.created for id, stored in town.archive.instances(service).items()} == created
    assert recording.of(Kind.INSTANCE) == []
    for caller in callers:
        calls += caller.more_calls(20)
    assert [call for call in calls if call.error] == []
