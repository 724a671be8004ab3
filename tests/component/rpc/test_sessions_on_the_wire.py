"""Contracts 2 to 4: sessions, liveness and requests, on real etcd."""

from __future__ import annotations

import asyncio

import grpc
from trimtab.v1 import mesh_pb2 as pb
from trimtab.v1 import types_pb2 as types

from controlplane.app import ControlPlane
from controlplane.core.model import Kind, ServiceName
from tests.component.rpc.conftest import StartPlane, until
from tests.component.rpc.wire import Wire, endpoints
from tests.support.link import Link

ORDERS = ServiceName("default", "orders")
ATTACHED, LOST, PENDING = pb.Session.STATE_ATTACHED, pb.Session.STATE_LOST, pb.Session.STATE_PENDING


def listed(plane: ControlPlane) -> set[str]:
    return {item.instance.id for item in plane.view.instances(ORDERS)}


class TestSession:
    async def test_the_first_register_grants_one_and_tells_it_before_committed(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as wire:
            await wire.hello()
            request = await wire.register("a")
            session = (await wire.take("session")).session
            committed = (await wire.take("committed")).committed
            assert session.state == ATTACHED
            assert session.handle.startswith(f"{session.id}.")
            assert committed.request_id == request
            assert committed.instance_id == "a"
            await plane.reconciler.wait_for(committed.revision)
            assert listed(plane) == {"a"}
            await wire.register("b")
            assert (await wire.take("committed")).committed.instance_id == "b"

    async def test_a_client_that_only_reads_has_none(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as wire:
            await wire.hello(follow=(endpoints(),))
            await wire.delta()
            (client,) = plane.clients.local()
            assert client.session == ""

    async def test_a_broken_stream_is_resumed_on_any_replica_without_a_moment_of_absence(
        self, start_plane: StartPlane
    ) -> None:
        one, two = await start_plane(), await start_plane()
        events: list[str] = []
        two.reconciler.listen(
            lambda revision, names, happened: events.extend(
                str(event.ref) for event in happened if event.ref.kind is Kind.INSTANCE
            )
        )
        async with Wire(one.grpc_address) as wire:
            await wire.hello()
            session = await wire.enrol("a")
            await wire.register("b")
            await wire.take("committed")
        await until(lambda: listed(two) == {"a", "b"})
        events.clear()
        async with Wire(two.grpc_address) as wire:
            await wire.hello(resume=session.handle)
            resumed = (await wire.take("session")).session
            assert (resumed.state, resumed.handle, resumed.id) == (ATTACHED, session.handle, session.id)
            await asyncio.sleep(1.0)  # three times the old replica's grace
            assert events == []
            assert listed(one) == listed(two) == {"a", "b"}

    async def test_a_broken_stream_that_is_not_resumed_within_grace_ends_it(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as wire:
            await wire.hello()
            session = await wire.enrol("a")
            await until(lambda: listed(plane) == {"a"})
        await until(lambda: listed(plane) == set())
        async with Wire(plane.grpc_address) as wire:
            await wire.hello(resume=session.handle)
            assert (await wire.take("session")).session == pb.Session(state=LOST)
            again = await wire.enrol("a")
            assert again.id != session.id

    async def test_a_handle_that_nobody_gave_is_lost_and_the_stream_goes_on(self, plane: ControlPlane) -> None:
        for number, lease in enumerate(("nonsense", "1f", "ffffffffffffffff")):
            async with Wire(plane.grpc_address) as wire:
                await wire.hello(resume=f"{lease}.AAAAAAAAAAAAAAAAAAAAAA")
                assert (await wire.take("session")).session.state == LOST
                await wire.enrol(f"i{number}")

    async def test_with_the_store_away_a_resume_is_pending_then_attached(
        self, start_plane: StartPlane, cable: Link
    ) -> None:
        one = await start_plane()
        two = await start_plane(endpoint=cable.endpoint)
        async with Wire(one.grpc_address) as first:
            await first.hello()
            session = await first.enrol("a")
            cable.mute()
            async with Wire(two.grpc_address) as second:
                await second.hello(resume=session.handle)
                assert (await second.take("session")).session == pb.Session(state=PENDING)
                register = await second.register("b")
                cable.unmute()
                attached = (await second.take("session")).session
                assert (attached.state, attached.handle) == (ATTACHED, session.handle)
                assert (await second.take("committed")).committed.request_id == register

    async def test_a_client_that_leaves_before_the_store_answers_its_resume_leaves_nothing_behind(
        self, start_plane: StartPlane, cable: Link
    ) -> None:
        one = await start_plane()
        two = await start_plane(endpoint=cable.endpoint, etcd_timeout="10", heartbeat_window="25")
        async with Wire(one.grpc_address) as first:
            await first.hello()
            session = await first.enrol("a")
            cable.mute()
            async with Wire(two.grpc_address) as second:
                await second.hello(resume=session.handle)
            await until(lambda: not two.clients.local())
            cable.unmute()
            await until(lambda: listed(one) == set())

    async def test_on_its_own_replica_a_session_resumes_with_the_store_away(
        self, start_plane: StartPlane, cable: Link
    ) -> None:
        plane = await start_plane(endpoint=cable.endpoint)
        async with Wire(plane.grpc_address) as wire:
            await wire.hello()
            session = await wire.enrol("a")
            cable.mute()
        async with Wire(plane.grpc_address) as wire:
            await wire.hello(resume=session.handle)
            while (told := (await wire.take("session")).session).state != ATTACHED:
                assert told.state == PENDING
                cable.unmute()
            cable.unmute()
            await until(lambda: listed(plane) == {"a"})
            await asyncio.sleep(1.0)
            assert listed(plane) == {"a"}


class TestLiveness:
    async def test_silence_loses_the_session_and_the_client_is_told_on_the_same_stream(
        self, plane: ControlPlane
    ) -> None:
        async with Wire(plane.grpc_address) as wire:
            await wire.hello()
            first = await wire.enrol("a")
            await until(lambda: listed(plane) == {"a"})
            wire.stop_beating()
            assert (await wire.take("session")).session == pb.Session(state=LOST)
            await until(lambda: listed(plane) == set())
            wire.beat(0.2)
            assert (await wire.enrol("a")).id != first.id

    async def test_acknowledgements_are_no_heartbeats(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as wire:
            await wire.hello()
            await wire.enrol("a")
            wire.stop_beating()

            async def acknowledge() -> None:
                while True:
                    await wire.send(ack=pb.Ack(nonce=1))
                    await asyncio.sleep(0.1)

            busy = asyncio.create_task(acknowledge())
            assert (await wire.take("session")).session.state == LOST
            busy.cancel()

    async def test_goodbye_ends_it_at_once_and_the_stream_with_ok(self, start_plane: StartPlane) -> None:
        plane = await start_plane(grace="30")
        async with Wire(plane.grpc_address) as wire:
            await wire.hello()
            await wire.enrol("a")
            await until(lambda: listed(plane) == {"a"})
            await wire.send(goodbye=pb.Goodbye(reason="stopped"))
            assert (await wire.ended())[0] is grpc.StatusCode.OK
        await until(lambda: listed(plane) == set(), timeout=5)

    async def test_a_load_report_is_shown_to_operators(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as wire:
            await wire.hello("loaded")
            await wire.send(heartbeat=pb.Heartbeat(load=types.Load(cpu=0.5, memory=0.25, serving=3, calling=4)))
            await until(lambda: [client.load.serving for client in plane.clients.local()] == [3])
            (client,) = plane.clients.local()
            assert (client.node_id, client.load.cpu, client.load.memory, client.load.calling) == (
                "loaded",
                0.5,
                0.25,
                4,
            )


class TestRequests:
    async def test_every_request_is_answered_exactly_once(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as wire:
            await wire.hello()
            wanted = set()
            for number in range(300):
                good = number % 3
                wanted.add(await wire.register(f"i{number}", port=8000 if good else 0))
            answered: list[int] = []
            while len(answered) < 300:
                message = await wire.receive()
                kind = message.WhichOneof("message")
                if kind != "session":
                    answered.append(getattr(message, str(kind)).request_id)
            assert sorted(answered) == sorted(wanted)

    async def test_a_request_without_a_number_ends_the_stream(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as wire:
            await wire.hello()
            await wire.send(register=pb.Register(instance=types.Instance(service="orders")))
            code, error = await wire.ended()
        assert (code, error.code) == (grpc.StatusCode.INVALID_ARGUMENT, "stream.protocol")

    async def test_register_is_idempotent_and_an_update_replaces_what_is_reported(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as wire:
            await wire.hello()
            await wire.enrol("a", weight=10)
            await wire.register("a", weight=10)
            same = (await wire.take("committed")).committed
            await wire.register("a", weight=20)
            assert (await wire.take("committed")).committed.revision > same.revision
            changed = types.Instance(
                service="orders", id="a", address="10.0.0.1", port=8000, state=types.INSTANCE_STATE_DRAINING
            )
            await wire.send(update=pb.Update(request_id=50, instance=changed))
            committed = (await wire.take("committed")).committed
            await plane.reconciler.wait_for(committed.revision)
            (item,) = plane.view.instances(ORDERS)
            assert (item.instance.weight, item.instance.state) == (100, 3)

    async def test_an_id_that_is_left_out_is_derived_and_told(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as wire:
            await wire.hello(namespace="shop")
            await wire.register("")
            await wire.take("session")
            assert (await wire.take("committed")).committed.instance_id == "10.0.0.1-8000"
            await until(lambda: len(plane.view.instances(ServiceName("shop", "orders"))) == 1)

    async def test_deregister_removes_one_and_again_is_no_error(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as wire:
            await wire.hello()
            await wire.enrol("a")
            await wire.register("b")
            await wire.take("committed")
            for request in (70, 71):
                await wire.send(deregister=pb.Deregister(request_id=request, service="orders", id="a"))
                committed = (await wire.take("committed")).committed
                assert committed.request_id == request
            await plane.reconciler.wait_for(committed.revision)
            assert listed(plane) == {"b"}

    async def test_what_one_does_not_hold_cannot_be_changed(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as owner, Wire(plane.grpc_address) as other:
            await owner.hello("owner")
            await owner.enrol("a")
            await other.hello("other")
            instance = types.Instance(service="orders", id="a", address="10.0.0.1", port=8000)
            for _ in ("without a session", "with one"):
                await other.send(update=pb.Update(request_id=70, instance=instance))
                error = (await other.take_until("error")).error
                assert (error.request_id, error.code) == (70, "instance.not_found")
                await other.send(deregister=pb.Deregister(request_id=71, service="orders", id="a"))
                error = (await other.take_until("error")).error
                assert (error.request_id, error.code) == (71, "instance.not_found")
                await other.register("mine", port=9000)
            await until(lambda: "a" in listed(plane))

    async def test_refusals_name_every_place_and_leave_the_stream_open(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as wire:
            await wire.hello()
            request = await wire.register("a b", port=70_000, weight=70_000, metadata={"": "x"})
            error = (await wire.take("error")).error
            assert (error.request_id, error.code, error.retryable) == (request, "request.invalid", False)
            assert {violation.path for violation in error.violations} == {
                "instance.id",
                "instance.port",
                "instance.weight",
                "instance.metadata['']",
            }
            await wire.enrol("a")

    async def test_an_id_that_is_taken_elsewhere_is_a_duplicate(self, plane: ControlPlane) -> None:
        async with Wire(plane.grpc_address) as one, Wire(plane.grpc_address) as two:
            await one.hello("one")
            await one.enrol("a")
            await two.hello("two")
            await two.register("a", port=9000)
            await two.take("session")
            error = (await two.take("error")).error
            assert (error.code, error.retryable) == ("instance.duplicate", False)

    async def test_with_the_store_away_a_register_may_be_repeated(self, start_plane: StartPlane, cable: Link) -> None:
        plane = await start_plane(endpoint=cable.endpoint)
        async with Wire(plane.grpc_address) as wire:
            await wire.hello()
            cable.mute()
            request = await wire.register("a")
            error = (await wire.take("error")).error
            assert (error.request_id, error.retryable) == (request, True)
            assert error.code in {"store.unavailable", "store.timeout"}
            cable.cut()
            await wire.enrol("a")
