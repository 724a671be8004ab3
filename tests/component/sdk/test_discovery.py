"""Finding whom to call, over a real stream."""

from __future__ import annotations

import threading
import time

import pytest
from trimtab import Mesh, MeshClosed, NoEndpoints, ServiceState, SettingsInvalid
from trimtab.v1.mesh_pb2 import Delta, ServerMessage
from trimtab.v1.types_pb2 import HEALTH_DRAINING, HEALTH_SUSPECT, KIND_ENDPOINTS, KIND_POLICY, Endpoints, Resource

from tests.component.sdk.conftest import MakeMesh, until
from tests.support.fake_mesh import FakeMesh, endpoint

ORDERS = "default/orders"


def picked(mesh: Mesh, service: str = "orders", picks: int = 40) -> set[str]:
    found = set()
    for _ in range(picks):
        with mesh.pick(service) as pick:
            found.add(pick.endpoint.id)
    return found


def test_making_a_mesh_needs_no_server_and_no_time(make_mesh: MakeMesh) -> None:
    mesh = make_mesh("127.0.0.1:1")
    assert not mesh.status().connected
    assert mesh.status().connects == 0


def test_the_first_use_of_a_service_discovers_it(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"), endpoint("b"))
    assert picked(mesh) == {"a", "b"}
    followed = [(s.kind, s.name) for h in server.sent("hello") for s in h.subscriptions]
    assert followed == [(KIND_ENDPOINTS, ORDERS), (KIND_POLICY, ORDERS), (KIND_POLICY, "default/*")]


def test_a_service_of_another_namespace_is_named_in_full(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put("shop/orders", endpoint("a"))
    assert mesh.pick("shop/orders").endpoint.id == "a"
    assert mesh.pick("orders", namespace="shop").endpoint.id == "a"


def test_what_comes_and_goes_is_picked_and_not_picked(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    assert picked(mesh) == {"a"}
    server.store.put(ORDERS, endpoint("b"))
    until(lambda: picked(mesh) == {"a", "b"})
    server.store.remove(ORDERS, "a")
    until(lambda: picked(mesh) == {"b"})
    server.store.put(ORDERS, endpoint("b", health=HEALTH_DRAINING), endpoint("c"))
    until(lambda: picked(mesh) == {"c"})


def test_every_change_is_acknowledged(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    picked(mesh)
    for weight in range(1, 6):
        server.store.put(ORDERS, endpoint("a", weight=weight))
    until(lambda: mesh.endpoints("orders")[0].weight == 5)
    until(lambda: [a.nonce for a in server.sent("ack")] == list(range(1, 9)))
    assert mesh.status().revision == server.store.revision


def test_a_difference_that_does_not_fit_is_refused_and_followed_by_the_whole(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    picked(mesh)
    odd = Endpoints(base=1, changed=[endpoint("x")], total=1)
    resource = Resource(kind=KIND_ENDPOINTS, name=ORDERS, version=999, digest=5, endpoints=odd)
    server.send(ServerMessage(delta=Delta(nonce=77, version=999, resources=[resource])))
    until(lambda: server.sent("nack"))
    refusal = server.sent("nack")[0].refusals[0]
    assert refusal.resend
    assert "starts from version 1" in refusal.reason
    assert picked(mesh) == {"a"}
    server.store.put(ORDERS, endpoint("b"))
    until(lambda: picked(mesh) == {"a", "b"})


def test_one_bad_resource_does_not_hold_up_the_others_of_its_delta(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    server.store.put("default/stock", endpoint("s"))
    picked(mesh)
    picked(mesh, "stock")
    bad = Resource(kind=KIND_ENDPOINTS, name=ORDERS, version=900, endpoints=Endpoints(base=1, total=1))
    fine = Endpoints(full=True, changed=[endpoint("t")], total=1)
    good = Resource(kind=KIND_ENDPOINTS, name="default/stock", version=900, digest=4, endpoints=fine)
    server.send(ServerMessage(delta=Delta(nonce=50, version=900, resources=[bad, good])))
    until(lambda: picked(mesh, "stock") == {"t"})
    until(lambda: [r.name for n in server.sent("nack") for r in n.refusals] == [ORDERS])


def test_an_unknown_service_fails_fast_and_says_so(mesh: Mesh) -> None:
    with pytest.raises(NoEndpoints, match="default/nobody: the mesh has never heard of it"):
        mesh.pick("nobody")


def test_a_service_whose_instances_all_drain_fails_fast_and_says_so(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a", health=HEALTH_DRAINING), endpoint("b", weight=0))
    with pytest.raises(NoEndpoints, match="2 instances: 1 draining, 1 with weight 0"):
        mesh.pick("orders")


def test_without_any_server_a_call_fails_at_once_and_names_the_servers(make_mesh: MakeMesh) -> None:
    mesh = make_mesh("127.0.0.1:1", "127.0.0.1:2", discovery_timeout=30)
    with pytest.raises(NoEndpoints, match=r"no connection to 127\.0\.0\.1:1, 127\.0\.0\.1:2 .*no snapshot on disk"):
        mesh.pick("orders")


def test_under_protection_suspects_are_called(mesh: Mesh, server: FakeMesh) -> None:
    server.store.protected.add(ORDERS)
    server.store.put(ORDERS, endpoint("a", health=HEALTH_SUSPECT), endpoint("b", health=HEALTH_SUSPECT))
    assert picked(mesh) == {"a", "b"}
    assert mesh.service("orders").protected


def test_excluded_endpoints_are_not_picked_again(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, *(endpoint(name) for name in "abc"))
    for _ in range(50):
        assert mesh.pick("orders", exclude={"a", "b"}).endpoint.id == "c"
    with pytest.raises(NoEndpoints):
        mesh.pick("orders", exclude={"a", "b", "c"})


def test_round_robin_takes_turns_over_the_stream_too(make_mesh: MakeMesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"), endpoint("b"))
    mesh = make_mesh(server, algorithm="round_robin")
    turns = [mesh.pick("orders").endpoint.id for _ in range(6)]
    assert turns[0] != turns[1]
    assert turns[:2] * 3 == turns


def test_calls_in_flight_are_counted_until_done_once(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    pick = mesh.pick("orders")
    with mesh.serving:
        assert mesh.in_flight == (1, 1)
    pick.done()
    pick.done()
    assert mesh.in_flight == (0, 0)


def test_a_call_that_raised_is_reported_as_a_failure(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    with pytest.raises(RuntimeError), mesh.pick("orders"):
        raise RuntimeError
    with mesh.pick("orders"):
        until(lambda: server.sent("report"))
    entry = server.sent("report")[0].endpoints[0]
    assert (entry.service, entry.endpoint, entry.calls, entry.failures, entry.in_flight) == (ORDERS, "a", 1, 1, 1)


def test_heartbeats_carry_the_load(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    with mesh.pick("orders"), mesh.serving:
        until(lambda: any(h.load.calling == 1 and h.load.serving == 1 for h in server.sent("heartbeat")))
    assert server.sent("heartbeat")[-1].load.cpu == 0.25


def test_a_load_source_that_fails_costs_no_heartbeat(mesh: Mesh, server: FakeMesh) -> None:
    mesh.set_load_source(lambda: (1 / 0, 0.0))
    mesh.subscribe("orders")
    until(lambda: any(h.load.cpu == -1 for h in server.sent("heartbeat")))


def test_waiting_until_a_service_is_ready(mesh: Mesh, server: FakeMesh) -> None:
    with pytest.raises(NoEndpoints):
        mesh.wait_ready("orders", timeout=0.1)
    late = threading.Timer(0.1, lambda: server.store.put(ORDERS, endpoint("a")))
    late.start()
    mesh.wait_ready("orders", timeout=10)
    assert picked(mesh) == {"a"}
    late.join()


def test_a_watch_is_told_every_newest_state_until_it_is_cancelled(mesh: Mesh, server: FakeMesh) -> None:
    seen: list[set[str]] = []
    server.store.put(ORDERS, endpoint("a"))
    watch = mesh.watch("orders", lambda state: seen.append(set(state.endpoints)))
    until(lambda: seen and seen[-1] == {"a"})
    server.store.put(ORDERS, endpoint("b"))
    until(lambda: seen[-1] == {"a", "b"})
    watch.cancel()
    server.store.put(ORDERS, endpoint("c"))
    until(lambda: len(mesh.endpoints("orders")) == 3)
    assert seen[-1] == {"a", "b"}


def test_a_slow_or_failing_callback_holds_up_no_change(mesh: Mesh, server: FakeMesh) -> None:
    release = threading.Event()
    seen: list[int] = []

    def slow(state: ServiceState) -> None:
        seen.append(len(state.endpoints))
        assert release.wait(10)
        raise RuntimeError("the program's own mistake")

    server.store.put(ORDERS, endpoint("a"))
    mesh.watch("orders", slow)
    until(lambda: seen)
    for name in "bcdef":
        server.store.put(ORDERS, endpoint(name))
    until(lambda: len(mesh.endpoints("orders")) == 6)
    release.set()
    # What it was too slow for is left out: it goes straight to the newest.
    until(lambda: seen[-1] == 6)
    assert len(seen) <= 3


def test_a_service_that_is_followed_no_longer_is_discovered_again(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    picked(mesh)
    mesh.unsubscribe("orders")
    until(lambda: server.sent("unsubscribe"))
    server.store.put(ORDERS, endpoint("b"))
    assert picked(mesh) == {"a", "b"}


def test_many_threads_pick_while_everything_changes(mesh: Mesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, *(endpoint(f"e{n}") for n in range(20)))
    mesh.wait_ready("orders")
    stop, failures = threading.Event(), []

    def call() -> None:
        while not stop.is_set():
            try:
                with mesh.pick("orders") as pick:
                    assert pick.endpoint.weight
            except Exception as error:
                failures.append(error)
                return

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for n in range(100):
        server.store.put(ORDERS, endpoint(f"e{n % 20}", weight=1 + n))
        server.store.remove(ORDERS, f"e{(n + 7) % 20}")
    time.sleep(0.1)
    stop.set()
    for caller in callers:
        caller.join(10)
    assert not failures
    until(lambda: {e.id for e in mesh.endpoints("orders")} == server.store.ids(ORDERS))
    assert mesh.in_flight == (0, 0)


def test_more_services_than_the_server_takes_are_refused_without_losing_the_others(make_mesh: MakeMesh) -> None:
    with FakeMesh(max_subscriptions=3) as server:
        server.store.put(ORDERS, endpoint("a"))
        mesh = make_mesh(server, discovery_timeout=0.3)
        assert picked(mesh) == {"a"}
        with pytest.raises(NoEndpoints):
            mesh.pick("stock")
        server.store.put(ORDERS, endpoint("b"))
        until(lambda: picked(mesh) == {"a", "b"})


def test_after_close_every_use_says_so(make_mesh: MakeMesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    with make_mesh(server) as mesh:
        picked(mesh)
        registration = mesh.register("web", 9000)
    uses = [
        lambda: mesh.pick("orders"),
        lambda: mesh.endpoints("orders"),
        lambda: mesh.register("web", 1),
        lambda: mesh.config("app/file"),
        lambda: mesh.watch("orders", print),
        lambda: mesh.wait_ready("orders"),
        lambda: registration.ready(),
    ]
    for use in uses:
        with pytest.raises(MeshClosed, match="this Mesh is closed"):
            use()
    registration.deregister()
    mesh.close()


@pytest.mark.parametrize("name", ["", "/orders", "a/b/c", "orders/"])
def test_a_name_that_is_none_is_refused(mesh: Mesh, name: str) -> None:
    with pytest.raises(SettingsInvalid, match="is no name"):
        mesh.pick(name)
