"""A policy's way from a file to the clients that follow it, through real replicas on a real etcd."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from trimtab.policy import canonical, reading
from trimtab.policy.model import MAX_BYTES
from trimtab.v1 import admin_pb2
from trimtab.v1 import mesh_pb2 as pb
from trimtab.v1 import types_pb2 as types
from trimtab.v1.admin_pb2_grpc import AdminStub

from tests.component.rpc.wire import Wire
from tests.support.town.plugin import Build
from tests.support.town.process import Process
from tests.support.town.town import Town
from tests.unit.policy.documents import FITTING, large

ORDERS = """\
# agreed with billing
apiVersion: trimtab/v1
kind: ServicePolicy
metadata: {name: orders, namespace: shop}
spec:
  default:
    timeout: {total: 3s, attempt: 1s}
    retry: {attempts: 3, on: [connect-failure, 503, UNAVAILABLE], backoff: 50ms..1s, budget: 20%}
  routes:
    - match: {method: Charge}
      retry: off
"""
NAMESPACE = ORDERS.replace("name: orders", 'name: "*"')


@pytest.fixture(scope="module")
def town(towns: Build) -> Town:
    town = towns()
    town.add_replicas(2)
    return town


async def said(program: Process, status: int = 0) -> str:
    """What a command printed, once it ended with this status."""
    assert await asyncio.to_thread(program.popen.wait, 60) == status, program.tail()
    return program.log.read_text()


async def settled(work: Callable[[], Awaitable[Any]], wanted: Callable[[Any], bool]) -> Any:
    """What ``work`` finds, once it is what is wanted."""
    async with asyncio.timeout(20):
        while not wanted(found := await work()):
            await asyncio.sleep(0.05)
        return found


def policy(name: str) -> pb.Subscription:
    return pb.Subscription(kind=types.KIND_POLICY, name=name)


def resources(delta: pb.Delta) -> dict[str, bytes]:
    """Documents by name; nothing for a policy that there is not."""
    return {resource.name: resource.policy.document for resource in delta.resources}


async def test_a_policy_reaches_its_followers_as_it_is_applied_changed_and_withdrawn(
    town: Town, tmp_path: Path
) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text(ORDERS)
    # Not on the replica that is written to.
    async with Wire(town.replicas[1].address) as wire:
        await wire.hello("shopper", namespace="shop", follow=(policy("shop/orders"), policy("shop/*")))
        assert resources(await wire.delta()) == {"shop/orders": b"", "shop/*": b""}

        waiting = town.trimtab("apply", "--wait", "-f", str(file))
        assert resources(await wire.delta()) == {"shop/orders": canonical.encode(reading.read(ORDERS))}
        told = await said(waiting)
        assert re.search(r"shop/orders: policy applied at revision \d+", told)
        assert "1 of 1 clients have acknowledged" in told
        assert await said(town.trimtab("get", "policy", "orders", "-n", "shop")) == ORDERS

        file.write_text(NAMESPACE)
        assert "shop/*: policy applied" in await said(town.trimtab("apply", "-f", str(file)))
        assert resources(await wire.delta()) == {"shop/*": canonical.encode(reading.read(NAMESPACE))}

        explained = await said(
            town.trimtab("explain", "-n", "shop", "--to", "orders", "--method", "Charge", "-o", "json")
        )
        sections = {section["section"]: section for section in json.loads(explained)["sections"]}
        assert (sections["retry"]["off"], sections["retry"]["place"]) == (True, "routes[0]")
        assert [rollout["acknowledged"] for rollout in json.loads(explained)["rollouts"]] == [1, 1]

        assert "withdrawn" in await said(town.trimtab("delete", "policy", "orders", "-n", "shop"))
        assert resources(await wire.delta()) == {"shop/orders": b""}


async def test_a_refusal_of_a_client_ends_the_wait_with_its_reason(town: Town, tmp_path: Path) -> None:
    file = tmp_path / "stock.yaml"
    file.write_text(ORDERS.replace("name: orders", "name: stock"))
    async with Wire(town.replicas[1].address) as wire:
        await wire.hello("old-shopper", namespace="shop", follow=(policy("shop/stock"),))
        await wire.delta()
        waiting = town.trimtab("apply", "--wait", "-f", str(file))
        delta = await wire.delta(ack=False)
        refusal = pb.Refusal(kind=types.KIND_POLICY, name="shop/stock", reason="spec.routes: unknown field")
        await wire.send(nack=pb.Nack(nonce=delta.nonce, refusals=[refusal]))
        assert "old-shopper: spec.routes: unknown field" in await said(waiting, 1)
        # What it refused is in force for those who understand it.
        assert "shop/stock" not in await said(town.trimtab("diff", "-f", str(file)))


async def test_operators_may_ask_who_follows_something_over_grpc(town: Town) -> None:
    named = pb.ResourceName(kind=types.KIND_POLICY, name="toys/*")
    async with (
        Wire(town.replicas[1].address) as wire,
        Wire(town.replicas[1].address) as other,
        grpc.aio.insecure_channel(town.replicas[0].address) as channel,
    ):
        await wire.hello("follower", namespace="toys", follow=(policy("toys/*"),))
        await other.hello("stranger", namespace="toys", follow=(policy("toys/cars"),))
        delta = await wire.delta(ack=False)
        admin = AdminStub(channel)  # type: ignore[no-untyped-call]
        asked = admin_pb2.ListClientsRequest(following=[named])
        [client] = (await admin.ListClients(asked, timeout=20)).clients
        assert (client.node.id, [followed.behind for followed in client.followed]) == ("follower", [True])
        await wire.ack(delta)

        async def answer() -> Any:
            return (await admin.ListClients(asked, timeout=20)).clients[0].followed[0]

        assert (await settled(answer, lambda followed: not followed.behind)).resource == named
        nonsense = admin_pb2.ListClientsRequest(following=[pb.ResourceName(kind=types.KIND_POLICY, name="toys")])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await admin.ListClients(nonsense, timeout=20)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_write_that_did_not_see_the_last_one_is_refused(town: Town, tmp_path: Path) -> None:
    http, path = town.replicas[0].http, "/v1/namespaces/shop/policies/lost"
    text = ORDERS.replace("name: orders", "name: lost")
    yaml = {"Content-Type": "application/yaml"}
    first = http.put(path, content=text, headers=yaml | {"If-None-Match": "*"})
    theirs = http.put(path, content=text.replace("3s", "4s"), headers=yaml | {"If-Match": first.headers["etag"]})
    mine = http.put(path, content=text.replace("3s", "5s"), headers=yaml | {"If-Match": first.headers["etag"]})
    assert (theirs.status_code, mine.status_code) == (200, 412)
    assert mine.json()["code"] == "resource.precondition_failed"
    stale = town.trimtab("delete", "policy", "lost", "-n", "shop", "--expect", first.headers["etag"].strip('"'))
    assert "resource.precondition_failed" in await said(stale, 1)
    assert "total: 4s" in http.get(path).json()["source"]


async def test_a_bad_document_is_refused_with_its_place_here_and_by_the_server(town: Town, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("# two documents\n---\n" + ORDERS.replace("attempts: 3", "attemps: 3"))
    told = await said(town.trimtab("apply", "-f", str(file)), 1)
    assert f"{file}:10:13: spec.default.retry.attemps: " in told
    assert "did you mean attempts?" in told
    answer = town.replicas[0].http.put(
        "/v1/namespaces/shop/policies/orders",
        content=file.read_bytes(),
        headers={"Content-Type": "application/yaml", "If-None-Match": "*"},
    )
    [place] = answer.json()["errors"]
    assert (answer.json()["code"], place["line"], place["column"]) == ("policy.invalid", 10, 13)


async def test_a_policy_as_large_as_may_be_reaches_its_followers_and_a_larger_one_nobody(town: Town) -> None:
    http, path = town.replicas[0].http, "/v1/namespaces/shop/policies/catalogue"
    yaml = {"Content-Type": "application/yaml", "If-None-Match": "*"}
    text = large(FITTING).replace("name: orders", "name: catalogue") + "#"
    # Quotes take most room where it is stored.
    text += '"' * (MAX_BYTES - len(text))
    async with Wire(town.replicas[1].address) as wire:
        await wire.hello("reader", namespace="shop", follow=(policy("shop/catalogue"),))
        await wire.delta()
        refused = await asyncio.to_thread(http.put, path, content=text + '"', headers=yaml)
        assert (refused.status_code, refused.json()["code"]) == (413, "request.too_large")
        assert f"at most {MAX_BYTES}" in refused.json()["hint"]
        taken = await asyncio.to_thread(http.put, path, content=text, headers=yaml)
        assert taken.status_code == 201, taken.text
        [document] = resources(await wire.delta()).values()
        assert canonical.decode(document) == reading.read(text)
        wide = large(FITTING + 1).replace("name: orders", "name: catalogue")
        refused = await asyncio.to_thread(http.put, path, content=wide, headers=yaml)
        [place] = refused.json()["errors"]
        assert (refused.json()["code"], "with all defaults written out" in place["message"]) == ("policy.invalid", True)


async def test_breakers_of_clients_on_any_replica_are_shown_until_they_leave(town: Town) -> None:
    http = town.replicas[0].http

    async def listed() -> list[dict[str, Any]]:
        answer = await asyncio.to_thread(http.get, "/v1/breakers", params={"service": "payments"})
        return answer.json()["items"]  # type: ignore[no-any-return]

    async with Wire(town.replicas[1].address) as wire:
        await wire.hello("reporter", namespace="shop")
        broken = pb.BreakerReport(
            service="shop/payments",
            endpoint="10.0.0.7-8000",
            state=pb.BreakerReport.STATE_OPEN,
            age=Duration(seconds=2),
            calls=20,
            failure_ratio=0.75,
            retry_after=Duration(seconds=600),
        )
        await wire.send(report=pb.Report(breakers=[broken]))
        [shown] = await settled(listed, bool)
        assert (shown["node"], shown["state"], shown["failure_ratio"]) == ("reporter", "OPEN", 0.75)
        assert 590 < shown["retry_after"] <= 600
        row = (await said(town.trimtab("get", "breakers", "payments"))).splitlines()[1].split()
        assert row[:4] == ["test", "shop/payments", "10.0.0.7-8000", "OPEN"]
        async with grpc.aio.insecure_channel(town.replicas[0].address) as channel:
            admin = AdminStub(channel)  # type: ignore[no-untyped-call]
            everywhere = await admin.ListBreakers(admin_pb2.ListBreakersRequest(caller="test"), timeout=20)
            assert [(found.node, found.report.endpoint) for found in everywhere.breakers] == [
                ("reporter", "10.0.0.7-8000")
            ]
            here = await admin.ListBreakers(admin_pb2.ListBreakersRequest(local=True), timeout=20)
            assert not here.breakers
        # A report is the whole picture.
        await wire.send(report=pb.Report())
        await settled(listed, lambda found: not found)
        many = [pb.BreakerReport(service="shop/payments", method=f"m{n}", state=broken.state) for n in range(1500)]
        await wire.send(report=pb.Report(breakers=many))
        await settled(listed, bool)
        everything = await asyncio.to_thread(town.replicas[0].items, "/v1/breakers")
        assert len({item["method"] for item in everything}) == 1000
    await settled(listed, lambda found: not found)


async def test_calls_of_clients_on_all_replicas_are_summed_until_they_leave(town: Town) -> None:
    http = town.replicas[0].http

    async def listed(by: str = "endpoint") -> list[dict[str, Any]]:
        answer = await asyncio.to_thread(http.get, "/v1/traffic", params={"service": "parcels", "by": by})
        return answer.json()["items"]  # type: ignore[no-any-return]

    parcels = pb.EndpointReport(
        service="shop/parcels",
        endpoint="10.0.0.7-8000",
        calls=100,
        failures=25,
        in_flight=3,
        latency_mean=Duration(nanos=20_000_000),
    )
    interval = Duration(seconds=5)
    async with Wire(town.replicas[0].address) as here, Wire(town.replicas[1].address) as there:
        await here.hello("here", namespace="shop")
        await there.hello("there", namespace="shop")
        await here.send(report=pb.Report(endpoints=[parcels], interval=interval))
        parcels.ejected = True
        await there.send(report=pb.Report(endpoints=[parcels], interval=interval))
        [both] = await settled(listed, lambda found: found and found[0]["callers"] == 2)
        assert (both["calls_per_second"], both["failure_ratio"], both["latency_mean"]) == (40.0, 0.25, 0.02)
        assert (both["in_flight"], both["ejecting"], both["ejected_by"]) == (6, 1, ["test"])
        replicas = {item["node"]: item["replica"] for item in await listed("caller")}
        assert replicas.keys() == {"here", "there"}
        assert len(set(replicas.values())) == 2
        row = (await said(town.trimtab("get", "traffic", "parcels"))).splitlines()[1].split()
        assert row[:9] == ["shop/parcels", "10.0.0.7-8000", "40.0", "25%", "20.0ms", "6", "2", "1", "(test)"]
        async with grpc.aio.insecure_channel(town.replicas[0].address) as channel:
            admin = AdminStub(channel)  # type: ignore[no-untyped-call]
            everywhere = await admin.ListTraffic(admin_pb2.ListTrafficRequest(service="parcels"), timeout=20)
            assert [(told.endpoint, told.callers, told.replica) for told in everywhere.traffic] == [
                ("10.0.0.7-8000", 2, "")
            ]
            asked = admin_pb2.ListTrafficRequest(service="parcels", by_caller=True, local=True)
            local = await admin.ListTraffic(asked, timeout=20)
            assert [(told.node, told.replica) for told in local.traffic] == [("here", replicas["here"])]
        # A report of breakers alone says nothing of endpoints; one with an interval is the whole picture of them.
        await there.send(report=pb.Report(breakers=[pb.BreakerReport(service="shop/parcels", state=1)]))
        assert (await listed())[0]["callers"] == 2
        await there.send(report=pb.Report(interval=interval))
        await settled(listed, lambda found: [item["callers"] for item in found] == [1])
        many = [pb.EndpointReport(service="shop/parcels", endpoint=f"e{n}", calls=1) for n in range(1500)]
        await there.send(report=pb.Report(endpoints=many, interval=interval))
        await settled(listed, lambda found: len(found) == 100)
        assert len(await asyncio.to_thread(town.replicas[0].items, "/v1/traffic")) == 1001
    await settled(listed, lambda found: not found)
