"""Calls of gRPC through a fake mesh."""

from __future__ import annotations

import grpc
import pytest
from trimtab.testing import FakeMesh

from tests.unit.sdk_http.known_mesh import refusing_endpoint


def test_each_call_of_a_method_is_written_down(fake_mesh: FakeMesh) -> None:
    fake_mesh.add("orders", refusing_endpoint("a").target)
    with fake_mesh.grpc_channel("orders") as channel:
        charge = channel.unary_unary("/shop.Orders/Charge")
        for _ in range(3):
            with pytest.raises(grpc.RpcError):
                charge(b"42", timeout=5)
    assert [call.method for call in fake_mesh.calls("orders")] == ["shop.Orders/Charge"] * 3
