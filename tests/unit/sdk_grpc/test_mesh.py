"""The channels of a real mesh."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from trimtab import AsyncMesh, Mesh
from trimtab.errors import MeshClosed, NoEndpoints

from tests.support.fake_mesh import FakeMesh, endpoint
from tests.unit.sdk_grpc.shop import OrdersStub, Shop

ASKED = StringValue(value="42")


def test_a_mesh_makes_channels_to_its_services(shop: Shop, tmp_path: Path) -> None:
    with FakeMesh() as server:
        server.store.put("default/orders", endpoint("a", shop.port))
        server.store.put("shop/orders", endpoint("a", shop.port))
        with Mesh(server.address, snapshot_dir=tmp_path) as mesh:
            with mesh.grpc_channel("orders") as channel, mesh.grpc_channel("orders", namespace="shop") as other:
                assert isinstance(channel, grpc.Channel)
                for _ in range(2):
                    answer, call = OrdersStub(channel).Charge.with_call(ASKED)
                assert (answer.value, call.trimtab.service) == ("a 42", "default/orders")
                assert OrdersStub(other).Charge.with_call(ASKED)[1].trimtab.service == "shop/orders"
            with mesh.grpc_channel("nobody") as nobody, pytest.raises(NoEndpoints, match="never heard of it"):
                OrdersStub(nobody).Charge(ASKED)
            late = mesh.grpc_channel("orders")
        with pytest.raises(MeshClosed):
            OrdersStub(late).Charge(ASKED)
        late.close()


async def test_an_asynchronous_mesh_makes_channels_to_its_services(shop: Shop, tmp_path: Path) -> None:
    with FakeMesh() as server:
        server.store.put("default/orders", endpoint("a", shop.port))
        async with AsyncMesh(server.address, snapshot_dir=tmp_path) as mesh:
            async with mesh.grpc_channel("orders") as channel:
                assert isinstance(channel, grpc.aio.Channel)
                answers = await asyncio.gather(*(OrdersStub(channel).Charge(ASKED) for _ in range(3)))
                assert [answer.value for answer in answers] == ["a 42"] * 3
                call = OrdersStub(channel).Charge(ASKED)
                assert (await call).value == "a 42"
                assert call.trimtab.service == "default/orders"
            late = mesh.grpc_channel("orders")
        with pytest.raises(MeshClosed):
            await OrdersStub(late).Charge(ASKED)
        await late.close()
