"""The stream's protocol, without a stream: what is sent and what is told, step by step."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.session import (
    REQUEST_DEADLINE,
    Arrived,
    Attached,
    Broken,
    Complaint,
    Crowded,
    Denied,
    Lost,
    Moving,
    Opened,
    Phase,
    Session,
    Step,
    Stored,
    Waiting,
)
from trimtab.v1.mesh_pb2 import (
    ClientMessage,
    Committed,
    Delta,
    EndpointReport,
    GoAway,
    Quota,
    Refusal,
    Report,
    ServerMessage,
    Welcome,
)
from trimtab.v1.mesh_pb2 import Session as Told
from trimtab.v1.types_pb2 import (
    INSTANCE_STATE_DRAINING,
    KIND_CONFIG,
    KIND_ENDPOINTS,
    Error,
    Instance,
    Load,
    Node,
    Resource,
)

ORDERS = (int(KIND_ENDPOINTS), "default/orders")
CONFIG = (int(KIND_CONFIG), "default/orders/app")


def machine(**options: Any) -> Session:
    return Session(Node(id="n"), random.Random(1), **options)


def welcome(limit: int = 100) -> ServerMessage:
    return ServerMessage(
        welcome=Welcome(
            replica="r", heartbeat_interval=Duration(seconds=2), grace=Duration(seconds=9), max_subscriptions=limit
        )
    )


def session(state: Told.State, handle: str = "") -> ServerMessage:
    return ServerMessage(session=Told(state=state, handle=handle, id=handle[:3]))


def committed(request: int, id_: str = "a") -> ServerMessage:
    return ServerMessage(committed=Committed(request_id=request, instance_id=id_, revision=50))


def error(request: int, code: str, retryable: bool = False) -> ServerMessage:
    return ServerMessage(error=Error(request_id=request, code=code, message="no", retryable=retryable))


def instance(port: int = 8000) -> Instance:
    return Instance(namespace="default", service="orders", address="10.0.0.1", port=port)


def kinds(step: Step) -> list[str | None]:
    return [m.WhichOneof("message") for m in step.send]


def events(step: Step) -> list[type]:
    return [type(e) for e in step.events]


def opened(machine: Session, now: float = 0.0, limit: int = 100) -> Session:
    machine.hello()
    machine.received(welcome(limit), now)
    return machine


def registered(machine: Session, now: float = 0.0) -> int:
    """Register one instance, answered by the server. Returns its key."""
    key, step = machine.register(instance(), now)
    machine.received(session(Told.STATE_ATTACHED, "handle"), now)
    machine.received(committed(step.send[0].register.request_id), now)
    return key


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


# Registering


def test_a_registration_before_the_stream_is_sent_after_the_welcome() -> None:
    m = machine()
    key, step = m.register(instance(), 0)
    assert step.send == []
    m.hello()
    step = m.received(welcome(), 0)
    assert kinds(step) == ["register"]
    done = m.received(committed(step.send[0].register.request_id, "10.0.0.1-8000"), 0)
    assert done.events == [Stored(key, 1, "10.0.0.1-8000", 50)]


def test_the_first_register_is_granted_a_session() -> None:
    m = opened(machine())
    m.register(instance(), 0)
    assert m.received(session(Told.STATE_ATTACHED, "secret"), 0).events == [Attached("sec", resumed=False)]
    assert m.handle == "secret"


def test_a_change_while_a_request_is_on_its_way_is_sent_after_the_answer_and_only_the_newest() -> None:
    m = opened(machine())
    key, first = m.register(instance(), 0)
    for weight in (1, 2, 3):
        wanted = instance()
        wanted.weight = weight
        _, step = m.change(key, wanted, 0)
        assert step.send == []
    step = m.received(committed(first.send[0].register.request_id), 0)
    assert kinds(step) == ["update"]
    assert step.send[0].update.instance.weight == 3
    assert step.send[0].update.instance.id == "a"


def test_a_deregistration_names_the_id_that_the_server_chose() -> None:
    m = opened(machine())
    key = registered(m)
    generation, step = m.change(key, None, 0)
    assert step.send[0].deregister.id == "a"
    done = m.received(committed(step.send[0].deregister.request_id), 0)
    assert done.events == [Stored(key, generation, "a", 50)]


def test_deregistering_what_was_never_sent_is_done_without_a_word() -> None:
    m = machine()
    key, _ = m.register(instance(), 0)
    m.change(key, None, 0)
    m.hello()
    step = m.received(welcome(), 0)
    assert step.send == []
    assert Stored in events(step)


def test_an_instance_that_is_gone_already_is_deregistered() -> None:
    m = opened(machine())
    key = registered(m)
    _, step = m.change(key, None, 0)
    done = m.received(error(step.send[0].deregister.request_id, "instance.not_found"), 0)
    assert events(done) == [Stored]


def test_an_update_of_an_instance_that_the_server_does_not_know_registers_it() -> None:
    m = opened(machine())
    key = registered(m)
    _, step = m.change(key, instance(), 0)
    again = m.received(error(step.send[0].update.request_id, "instance.not_found"), 0)
    assert kinds(again) == ["register"]


def test_a_refusal_is_told_and_tried_again_later() -> None:
    m = opened(machine())
    key, step = m.register(instance(), 0)
    told = m.received(error(step.send[0].register.request_id, "store.unavailable", retryable=True), 0)
    assert isinstance(told.events[0], Denied)
    assert (told.events[0].key, told.events[0].error.code) == (key, "store.unavailable")
    assert told.send == []
    due = m.deadline()
    assert due is not None
    assert 0 < due <= 0.5
    assert "register" in kinds(m.tick(due))


def test_a_withdrawn_refusal_leaves_what_was_stored() -> None:
    m = opened(machine())
    key = registered(m)
    wanted = instance()
    wanted.weight = 7
    _, step = m.change(key, wanted, 0)
    m.received(error(step.send[0].update.request_id, "request.invalid"), 0)
    assert m.withdraw(key, 0).send == []
    assert kinds(m.tick(100)) == ["heartbeat"]
    again = m.received(session(Told.STATE_LOST), 101)
    assert [x.register.instance.weight for x in again.send] == [0]


def test_a_withdrawn_registration_is_never_sent_again() -> None:
    m = opened(machine())
    key, step = m.register(instance(), 0)
    m.received(error(step.send[0].register.request_id, "instance.duplicate"), 0)
    m.withdraw(key, 0)
    assert kinds(m.tick(100)) == ["heartbeat"]


def test_silence_after_a_request_breaks_the_stream() -> None:
    m = opened(machine())
    m.register(instance(), 0)
    assert Broken not in events(m.tick(REQUEST_DEADLINE - 1))
    assert events(m.tick(REQUEST_DEADLINE)) == [Broken]


# Coming back


def test_a_resumed_session_registers_nothing_again() -> None:
    m = opened(machine())
    registered(m)
    m.broken()
    assert m.hello().hello.resume == "handle"
    step = m.received(welcome(), 10)
    assert kinds(step) == []
    assert m.phase is Phase.RESUMING
    step = m.received(session(Told.STATE_ATTACHED, "handle"), 10)
    assert kinds(step) == []
    assert step.events == [Attached("han", resumed=True)]


def test_a_lost_session_registers_everything_again_in_its_newest_form() -> None:
    m = opened(machine())
    key = registered(m)
    wanted = instance()
    wanted.state = INSTANCE_STATE_DRAINING
    _, step = m.change(key, wanted, 0)
    m.received(committed(step.send[0].update.request_id), 0)
    m.broken()
    m.hello()
    m.received(welcome(), 10)
    step = m.received(session(Told.STATE_LOST), 10)
    assert Lost in events(step)
    assert kinds(step) == ["register"]
    assert step.send[0].register.instance.state == INSTANCE_STATE_DRAINING
    assert m.hello().hello.resume == ""


def test_a_session_lost_on_the_same_stream_registers_again_there() -> None:
    m = opened(machine())
    registered(m)
    assert kinds(m.received(session(Told.STATE_LOST), 1)) == ["register"]


def test_while_the_store_is_away_nothing_is_registered() -> None:
    m = opened(machine())
    registered(m)
    m.broken()
    m.hello()
    m.received(welcome(), 10)
    assert events(m.received(session(Told.STATE_PENDING), 10)) == [Waiting]
    _, step = m.register(instance(9000), 10)
    assert step.send == []
    assert kinds(m.received(session(Told.STATE_ATTACHED, "handle"), 11)) == ["register"]


def test_a_request_cut_off_by_a_broken_stream_is_sent_again_after_resuming() -> None:
    m = opened(machine())
    registered(m)
    m.register(instance(9000), 0)
    m.broken()
    m.hello()
    m.received(welcome(), 10)
    step = m.received(session(Told.STATE_ATTACHED, "handle"), 10)
    assert [x.register.instance.port for x in step.send] == [9000]


def test_a_registration_of_unknown_fate_is_deregistered_by_the_derived_id() -> None:
    m = opened(machine())
    registered(m)
    key, _ = m.register(instance(9000), 0)
    m.broken()
    m.change(key, None, 5)
    m.hello()
    m.received(welcome(), 10)
    step = m.received(session(Told.STATE_ATTACHED, "handle"), 10)
    assert [x.deregister.id for x in step.send] == ["10.0.0.1-9000"]


def test_a_handle_that_no_server_knows_is_forgotten_and_all_is_registered_anew() -> None:
    m = opened(machine())
    registered(m)
    m.broken()
    assert events(m.forget(5)) == [Lost]
    assert m.hello().hello.resume == ""
    assert kinds(m.received(welcome(), 6)) == ["register"]


def test_a_second_welcome_moves_to_the_new_stream() -> None:
    m = opened(machine())
    registered(m)
    m.subscribe([ORDERS])
    m.hello()
    held = Resource(kind=KIND_ENDPOINTS, name=ORDERS[1], version=8, digest=3)
    m.applied(Delta(nonce=4, resources=[held]), [])
    step = m.received(welcome(), 20)
    # The old stream brought news after the Hello of the new one was written.
    assert [(s.version, s.digest) for s in step.send[0].subscribe.subscriptions] == [(8, 3)]
    assert m.phase is Phase.RESUMING


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
    assert step.events == [Crowded(("default/orders/app",), 1)]
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
    m = opened(machine(report=lambda: Report(endpoints=[EndpointReport(service="s", calls=1)])))
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
