"""Being found: registering, changing, leaving, and what becomes of it when the stream breaks."""

from __future__ import annotations

import pytest
from trimtab import Mesh, NotConnected, Refused, SettingsInvalid
from trimtab.v1.mesh_pb2 import ServerMessage
from trimtab.v1.mesh_pb2 import Session as Told
from trimtab.v1.types_pb2 import HEALTH_DRAINING, HEALTH_HEALTHY, HEALTH_UNHEALTHY, Endpoint, Error, Violation

from tests.component.sdk.conftest import MakeMesh, until
from tests.support.fake_mesh import FakeMesh, FakeStore

WEB = "default/web"


def stored(server: FakeMesh) -> Endpoint:
    (only,) = server.store.endpoints[WEB].values()
    return only


def test_a_registered_instance_is_stored_under_the_derived_id(mesh: Mesh, server: FakeMesh) -> None:
    registration = mesh.register("web", 9000, weight=7, zone="z1", metadata={"version": "3"})
    assert registration.id == "127.0.0.1-9000"
    assert registration.service == WEB
    assert registration.registered
    told = stored(server)
    assert (told.address, told.port, told.weight, told.zone) == ("127.0.0.1", 9000, 7, "z1")
    assert dict(told.metadata) == {"version": "3"}


def test_an_instance_starts_gets_ready_drains_and_leaves(mesh: Mesh, server: FakeMesh) -> None:
    registration = mesh.register("web", 9000, id="me", state="starting")
    assert (stored(server).id, stored(server).health) == ("me", HEALTH_UNHEALTHY)
    registration.ready()
    assert stored(server).health == HEALTH_HEALTHY
    registration.update(weight=9, metadata={"a": "b"})
    assert (stored(server).weight, dict(stored(server).metadata)) == (9, {"a": "b"})
    registration.drain()
    assert (stored(server).health, registration.state) == (HEALTH_DRAINING, "draining")
    registration.deregister()
    assert not server.store.ids(WEB)
    assert not registration.registered
    registration.deregister()
    with pytest.raises(Refused, match="no longer registered"):
        registration.ready()


def test_the_zone_of_the_mesh_is_the_instances_zone(make_mesh: MakeMesh, server: FakeMesh) -> None:
    make_mesh(server, zone="east").register("web", 9000)
    assert stored(server).zone == "east"


def test_closing_says_goodbye_and_takes_the_instances_away(mesh: Mesh, server: FakeMesh) -> None:
    mesh.register("web", 9000)
    mesh.close()
    assert [g.reason for g in server.sent("goodbye")] == ["stopped"]
    assert not server.store.ids(WEB)


def test_a_refusal_has_the_servers_code_hint_and_places(mesh: Mesh, server: FakeMesh) -> None:
    server.refusals[WEB] = Error(
        code="request.invalid",
        message="the instance is wrong",
        hint="look at the port",
        violations=[Violation(path="instance.port", message="taken")],
    )
    with pytest.raises(Refused) as caught:
        mesh.register("web", 9000)
    assert (caught.value.code, caught.value.hint) == ("request.invalid", "look at the port")
    assert caught.value.violations[0].path == "instance.port"
    server.refusals.clear()
    mesh.register("web", 9001)
    until(lambda: len(server.sent("heartbeat")) > 3)
    # What was refused is not tried again behind the caller's back.
    assert server.store.ids(WEB) == {"127.0.0.1-9001"}


def test_a_refused_update_leaves_the_instance_as_it_was(mesh: Mesh, server: FakeMesh) -> None:
    registration = mesh.register("web", 9000, weight=5)
    server.refusals[WEB] = Error(code="request.invalid", message="no")
    with pytest.raises(Refused):
        registration.update(weight=6)
    assert registration.error is not None
    server.refusals.clear()
    registration.update(zone="z")
    assert stored(server).zone == "z"
    assert registration.error is None


def test_a_passing_refusal_is_tried_again_until_it_passes(mesh: Mesh, server: FakeMesh) -> None:
    server.refusals[WEB] = Error(code="store.unavailable", message="etcd is away", retryable=True)
    registration = mesh.register("web", 9000, wait=False)
    until(lambda: len(server.sent("register")) >= 2)
    assert not registration.registered
    assert registration.error is not None
    server.refusals.clear()
    until(lambda: registration.registered)
    assert registration.id == "127.0.0.1-9000"


def test_a_passing_refusal_that_does_not_pass_in_time_is_raised_and_nothing_stays(mesh: Mesh, server: FakeMesh) -> None:
    server.refusals[WEB] = Error(code="store.unavailable", message="etcd is away", retryable=True)
    with pytest.raises(Refused, match=r"store\.unavailable"):
        mesh.register("web", 9000, timeout=0.5)
    server.refusals.clear()
    until(lambda: len(server.sent("heartbeat")) > 6)
    assert not server.store.ids(WEB)


def test_without_a_server_registering_raises_and_nothing_stays(make_mesh: MakeMesh) -> None:
    mesh = make_mesh("127.0.0.1:1")
    with pytest.raises(
        NotConnected, match=r"registration of default/web 127\.0\.0\.1:9000 was not stored within 0\.3 s"
    ):
        mesh.register("web", 9000, timeout=0.3)


def test_without_waiting_an_instance_is_registered_when_the_server_comes(make_mesh: MakeMesh) -> None:
    with FakeMesh() as first:
        port = first.port
    mesh = make_mesh(f"127.0.0.1:{port}")
    registration = mesh.register("web", 9000, wait=False)
    until(lambda: mesh.status().last_error)
    with FakeMesh(port=port) as server:
        until(lambda: registration.registered)
        assert server.store.ids(WEB) == {"127.0.0.1-9000"}
        mesh.close()


def test_a_restarted_server_that_kept_its_store_finds_the_session_again(make_mesh: MakeMesh) -> None:
    store = FakeStore()
    with FakeMesh(store) as first:
        mesh = make_mesh(first)
        registration = mesh.register("web", 9000)
        port = first.port
    with FakeMesh(store, port=port) as second:
        until(lambda: mesh.status().session_state == "attached" and mesh.status().connects == 2)
        assert second.streams[0].hello.resume
        assert registration.registered
        assert not second.sent("register")
        assert not second.sent("update")
        registration.drain()
        assert stored(second).health == HEALTH_DRAINING
        mesh.close()


def test_a_server_that_lost_everything_gets_everything_again(make_mesh: MakeMesh) -> None:
    with FakeMesh() as first:
        mesh = make_mesh(first)
        mesh.register("web", 9000)
        mesh.register("web", 9001).drain()
        port = first.port
    with FakeMesh(port=port) as second:
        until(lambda: len(second.store.ids(WEB)) == 2)
        healths = {e.port: e.health for e in second.store.endpoints[WEB].values()}
        assert healths == {9000: HEALTH_HEALTHY, 9001: HEALTH_DRAINING}
        mesh.close()


def test_a_session_lost_while_connected_is_begun_anew(mesh: Mesh, server: FakeMesh) -> None:
    registration = mesh.register("web", 9000)
    server.store.expire(server.streams[0].handle)
    server.streams[0].handle = ""
    server.send(ServerMessage(session=Told(state=Told.STATE_LOST)))
    until(lambda: server.store.ids(WEB) and registration.registered)
    assert len(server.sent("register")) == 2


def test_while_the_store_is_away_the_session_waits(make_mesh: MakeMesh) -> None:
    store = FakeStore()
    with FakeMesh(store) as first:
        mesh = make_mesh(first)
        mesh.register("web", 9000)
        port = first.port
    with FakeMesh(store, port=port, pending_resumes=True) as second:
        until(lambda: mesh.status().session_state == "pending")
        late = mesh.register("web", 9001, wait=False)
        until(lambda: len(second.sent("heartbeat")) >= 2)
        assert not second.sent("register")
        handle = second.streams[0].handle
        second.send(ServerMessage(session=Told(state=Told.STATE_ATTACHED, handle=handle, id="x")))
        until(lambda: late.registered)
        assert [r.instance.port for r in second.sent("register")] == [9001]
        mesh.close()


@pytest.mark.parametrize(
    "wrong", [{"port": 0}, {"port": 70000}, {"weight": -1}, {"weight": 65536}, {"state": "asleep"}]
)
def test_what_the_wire_cannot_carry_is_refused_before_it_is_sent(mesh: Mesh, wrong: dict[str, int]) -> None:
    arguments = {"port": 9000, **wrong}
    with pytest.raises(SettingsInvalid):
        mesh.register("web", **arguments)  # type: ignore[arg-type]
