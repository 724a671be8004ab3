"""The stream's protocol, without a stream: how registrations are told, answered, and survive a broken stream."""

from __future__ import annotations

from trimtab.core.session import (
    REQUEST_DEADLINE,
    Attached,
    Broken,
    Denied,
    Lost,
    Phase,
    Stored,
    Waiting,
)
from trimtab.v1.mesh_pb2 import (
    Delta,
)
from trimtab.v1.mesh_pb2 import Session as Told
from trimtab.v1.types_pb2 import (
    INSTANCE_STATE_DRAINING,
    KIND_ENDPOINTS,
    Resource,
)

from tests.unit.sdk.protocol import (
    ORDERS,
    committed,
    error,
    events,
    instance,
    kinds,
    machine,
    opened,
    registered,
    session,
    welcome,
)

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
