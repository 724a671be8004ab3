"""Who is connected, over all replicas."""

from __future__ import annotations

from controlplane.core.model import Event, Kind, Ref, Replica, Stored
from controlplane.core.view import View
from controlplane.runtime.clients import ClientInfo, Clients, Load


def client(node: str, replica: str) -> ClientInfo:
    return ClientInfo(
        node_id=node,
        name="",
        namespace="default",
        sdk="",
        host="",
        pid=1,
        zone="",
        peer="",
        replica=replica,
        session="",
        connected_at=0.0,
        last_heartbeat_age=0.0,
        subscriptions=0,
        acked=0,
        behind=False,
        nacks=(),
        load=Load(),
    )


class Here:
    def info(self) -> ClientInfo:
        return client("mine", "new")


def view_of(**addresses: str) -> View:
    view = View()
    for revision, (name, address) in enumerate(addresses.items(), start=1):
        ref = Ref(Kind.REPLICA, (name,))
        record = Replica(name, address, "", "0", 0.0)
        view.apply(revision, [Event(ref, Stored(ref, record, revision, revision), revision)])
    return view


async def test_a_replica_on_the_address_of_one_that_died_does_not_count_its_clients_twice() -> None:
    async def ask(address: str) -> list[ClientInfo]:
        return clients.local() if address == "here:1" else [client("far", "other")]

    clients = Clients(view_of(dead="here:1", new="here:1", other="there:1"), "new", ask)
    clients.add(Here())
    found, silent = await clients.all()
    assert [(info.node_id, info.replica) for info in found] == [("far", "other"), ("mine", "new")]
    assert silent == []


async def test_replicas_that_do_not_answer_are_named() -> None:
    async def ask(address: str) -> list[ClientInfo]:
        raise OSError(address)

    assert await Clients(view_of(new="here:1", cut_off="there:1"), "new", ask).all() == ([], ["cut_off"])
