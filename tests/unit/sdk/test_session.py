"""The stream's protocol, without a stream: what is sent and what is told, step by step."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.session import (
    REPORT_PAUSE,
    Arrived,
    Broken,
    Complaint,
    Crowded,
    Moving,
    Opened,
    Phase,
    Step,
)
from trimtab.v1.mesh_pb2 import (
    BreakerReport,
    ClientMessage,
    Delta,
    EndpointReport,
    GoAway,
    Quota,
    Refusal,
    Report,
    ServerMessage,
)
from trimtab.v1.mesh_pb2 import Session as Told
from trimtab.v1.types_pb2 import (
    KIND_CONFIG,
    KIND_ENDPOINTS,
    Load,
    Resource,
)

from tests.unit.sdk.protocol import (
    CONFIG,
    ORDERS,
    committed,
    error,
    events,
    instance,
    kinds,
    machine,
    opened,
    session,
    welcome,
)

# Opening


def test_a_stream_opens_with_a_hello_that_names_what_is_held() -> None:
    m = opened(machine())
    m.subscribe([ORDERS])
    resource = Resource(kind=KIND_ENDPOINTS, name=ORDERS[1], version=7, digest=9)
    m.applied(Delta(nonce=1, resources=[resource]), [])
    m.broken()
    told = m.hello().hello
    assert [(s.name, s.version, s.digest) for s in told.subscriptions] == [("default/orders", 7, 9)]


def test_a_first_stream_resumes_nothing_and_is_open_at_once() -> None:
    m = machine()
    assert m.hello().hello.resume == ""
    step = m.received(welcome(), 0)
    assert events(step) == [Opened]
    assert m.phase is Phase.OPEN
    assert (m.interval, m.grace) == (2.0, 9.0)


def test_anything_before_the_welcome_breaks_the_stream() -> None:
    m = machine()
    m.hello()
    assert events(m.received(committed(1), 0)) == [Broken]


def test_what_was_subscribed_between_hello_and_welcome_is_not_forgotten() -> None:
    m = machine()
    m.hello()
    assert m.subscribe([ORDERS]).send == []
    step = m.received(welcome(), 0)
    assert [s.name for s in step.send[0].subscribe.subscriptions] == ["default/orders"]


def test_what_the_hello_said_is_not_said_again() -> None:
    m = machine()
    m.subscribe([ORDERS])
    m.hello()
    assert m.received(welcome(), 0).send == []


# Following


def test_a_delta_is_acknowledged_after_it_was_applied() -> None:
    m = opened(machine())
    m.subscribe([ORDERS])
    delta = Delta(nonce=3, resources=[Resource(kind=KIND_ENDPOINTS, name=ORDERS[1], version=5, digest=6)])
    assert m.received(ServerMessage(delta=delta), 0).events == [Arrived(delta)]
    assert m.applied(delta, []).send[0].ack.nonce == 3


def test_a_refused_resource_is_not_held_and_the_others_are() -> None:
    m = opened(machine())
    m.subscribe([ORDERS, CONFIG])
    delta = Delta(
        nonce=3,
        resources=[
            Resource(kind=KIND_ENDPOINTS, name=ORDERS[1], version=5, digest=6),
            Resource(kind=KIND_CONFIG, name=CONFIG[1], version=5, digest=7),
        ],
    )
    step = m.applied(delta, [Refusal(kind=KIND_CONFIG, name=CONFIG[1], reason="bad")])
    assert [r.reason for r in step.send[0].nack.refusals] == ["bad"]
    held = {s.name: s.digest for s in m.hello().hello.subscriptions}
    assert held == {"default/orders": 6, "default/orders/app": 0}


def test_unsubscribing_says_so_once() -> None:
    m = opened(machine())
    m.subscribe([ORDERS])
    assert [n.name for n in m.unsubscribe([ORDERS]).send[0].unsubscribe.names] == ["default/orders"]
    assert m.unsubscribe([ORDERS]).send == []
    assert not m.hello().hello.subscriptions


def test_more_subscriptions_than_the_server_takes_are_told_and_left_out() -> None:
    m = opened(machine(), limit=1)
    m.subscribe([ORDERS])
    step = m.subscribe([CONFIG])
    assert step.send == []
    assert step.events == [Crowded(((KIND_CONFIG, "default/orders/app"),), 1)]
    assert len(m.hello().hello.subscriptions) == 1


# Living


def test_heartbeats_come_at_the_interval_that_the_server_wants_and_carry_the_load() -> None:
    m = opened(machine(load=lambda: Load(cpu=0.5, calling=3)))
    assert m.deadline() == 2.0
    assert m.tick(1.9).send == []
    step = m.tick(2.0)
    assert kinds(step) == ["heartbeat"]
    assert step.send[0].heartbeat.load.calling == 3
    assert m.deadline() == 4.0


def test_after_a_long_pause_one_heartbeat_is_enough() -> None:
    m = opened(machine())
    assert kinds(m.tick(60.0)) == ["heartbeat"]
    assert m.deadline() == 62.0


def test_a_report_follows_its_heartbeat() -> None:
    m = opened(machine(report=lambda whole: Report(endpoints=[EndpointReport(service="s", calls=1)])))
    assert kinds(m.tick(2.0)) == ["heartbeat", "report"]


def test_a_server_that_asks_to_leave_is_left_by_its_owner() -> None:
    m = opened(machine())
    away = GoAway(reason="restart", spread=Duration(seconds=3))
    assert m.received(ServerMessage(go_away=away), 0).events == [Moving(away)]


def test_a_complaint_about_the_stream_is_told() -> None:
    m = opened(machine())
    assert events(m.received(error(0, "request.flood"), 0)) == [Complaint]


@pytest.mark.parametrize("message", [ServerMessage(), ServerMessage(quota=Quota(name="q"))])
def test_what_it_does_not_know_is_ignored(message: ServerMessage) -> None:
    m = opened(machine())
    step = m.received(message, 0)
    assert (step.send, step.events) == ([], [])


def test_goodbye_is_the_last_word() -> None:
    m = opened(machine())
    assert kinds(m.leave("stopped")) == ["goodbye"]
    assert m.leave("stopped").send == []
    assert m.received(welcome(), 1).events == []
    assert m.deadline() is None


# Any order of anything


@st.composite
def server_messages(draw: st.DrawFn) -> ServerMessage:
    kind = draw(st.sampled_from(["welcome", "session", "committed", "error", "delta", "go_away"]))
    match kind:
        case "welcome":
            return welcome()
        case "session":
            return session(draw(st.sampled_from(Told.State.values())), "handle")  # type: ignore[arg-type]
        case "committed":
            return committed(draw(st.integers(0, 6)))
        case "error":
            code = draw(st.sampled_from(["instance.not_found", "store.unavailable", "request.invalid"]))
            return error(draw(st.integers(0, 6)), code)
        case "delta":
            resource = Resource(kind=KIND_ENDPOINTS, name=ORDERS[1], version=draw(st.integers(0, 9)))
            return ServerMessage(delta=Delta(nonce=1, resources=[resource]))
    return ServerMessage(go_away=GoAway())


inputs = st.lists(
    st.one_of(server_messages(), st.sampled_from(["hello", "broken", "register", "change", "drop", "tick"]))
)


@settings(max_examples=150, deadline=None)
@given(inputs)
def test_in_any_order_of_inputs_it_stays_lawful(script: list[Any]) -> None:
    m = machine()
    keys: list[int] = []
    now = 0.0
    unanswered: set[int] = set()
    for item in script:
        now += 0.5
        steps: list[Step] = []
        if isinstance(item, ServerMessage):
            steps.append(m.received(item, now))
        elif item == "hello":
            m.hello()
        elif item == "broken":
            m.broken()
            unanswered.clear()
        elif item == "register":
            key, step = m.register(instance(), now)
            keys.append(key)
            steps.append(step)
        elif item == "tick":
            steps.append(m.tick(now))
        elif keys:
            try:
                steps.append(m.change(keys[-1], None if item == "drop" else instance(7), now)[1])
            except KeyError:
                keys.pop()
        for step in steps:
            sent = [_request(message) for message in step.send]
            ids = [request for request in sent if request]
            assert len(ids) == len(set(ids))
            assert m.phase is not Phase.AWAY or not step.send
            assert m.phase is not Phase.RESUMING or not ids


def _request(message: ClientMessage) -> int:
    kind = message.WhichOneof("message")
    return int(getattr(message, kind).request_id) if kind in ("register", "update", "deregister") else 0


def test_a_breaker_that_changes_its_state_is_reported_at_once_but_not_twice_in_a_moment() -> None:
    wholes: list[bool] = []

    def report(whole: bool) -> Report:
        wholes.append(whole)
        return Report(breakers=[BreakerReport(service="s")])

    m = opened(machine(report=report))
    assert kinds(m.report_soon(0.5)) == ["report"]
    assert kinds(m.report_soon(0.6)) == []
    assert m.deadline() == 0.5 + REPORT_PAUSE
    assert kinds(m.tick(0.5 + REPORT_PAUSE)) == ["report"]
    assert kinds(m.tick(2.0)) == ["heartbeat", "report"]
    assert wholes == [False, False, True]
