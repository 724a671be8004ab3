"""Who may speak: the token, certificates of both sides, and what needs neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from trimtab.v1 import admin_pb2, registry_pb2
from trimtab.v1.admin_pb2_grpc import AdminStub
from trimtab.v1.registry_pb2_grpc import RegistryStub

from tests.component.rpc.conftest import StartPlane
from tests.component.rpc.wire import Wire, ending, error_in
from tests.support.authority import Authority

TOKEN = "s3cret-token"


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_without_the_right_token_nothing_is_answered_but_health(start_plane: StartPlane) -> None:
    plane = await start_plane(token=TOKEN)
    for wrong in ("", "wrong", TOKEN + "x", TOKEN[:-1]):
        async with Wire(plane.grpc_address, token=wrong) as wire:
            code, error = await ending(wire.call)
            assert (code, error.code) == (grpc.StatusCode.UNAUTHENTICATED, "access.unauthenticated")
            assert "TRIMTAB_TOKEN" in error.hint
            assert TOKEN not in str(error)
    async with grpc.aio.insecure_channel(plane.grpc_address) as channel:
        registry, admin = RegistryStub(channel), AdminStub(channel)  # type: ignore[no-untyped-call]
        for call in (
            registry.ListServices(registry_pb2.ListServicesRequest()),
            registry.OpenSession(registry_pb2.OpenSessionRequest()),
            admin.ListClients(admin_pb2.ListClientsRequest()),
            channel.unary_unary("/trimtab.v1.Registry/NoSuchMethod", None, None)(b""),
        ):
            failure = await refused(call)
            assert failure.code() is grpc.StatusCode.UNAUTHENTICATED
            assert error_in(failure).code == "access.unauthenticated"
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="trimtab.v1.Mesh"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        allowed = registry.ListServices(
            registry_pb2.ListServicesRequest(), metadata=(("authorization", f"Bearer {TOKEN}"),)
        )
        assert list((await allowed).services) == []
    async with Wire(plane.grpc_address, token=TOKEN) as wire:
        await wire.hello()
        await wire.enrol("a")


def pair(files: tuple[Path, Path]) -> tuple[bytes, bytes]:
    """Key and certificate, as gRPC's channels take them."""
    cert, key = files
    return key.read_bytes(), cert.read_bytes()


async def test_certificates_are_asked_of_both_sides(start_plane: StartPlane, tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    cert, key = ours.issue("server")
    client, stranger = pair(ours.issue("client")), pair(theirs.issue("stranger"))
    tls = {"tls_cert": cert, "tls_key": key, "tls_client_ca": ours.ca}
    one = await start_plane(**tls)
    two = await start_plane(**tls)
    good = grpc.ssl_channel_credentials(ours.ca.read_bytes(), *client)
    async with Wire(one.grpc_address, credentials=good) as wire:
        await wire.hello("trusted")
        await wire.enrol("a")
        bad = {
            "no certificate": grpc.ssl_channel_credentials(ours.ca.read_bytes()),
            "a stranger's": grpc.ssl_channel_credentials(ours.ca.read_bytes(), *stranger),
            "distrusts the server": grpc.ssl_channel_credentials(theirs.ca.read_bytes(), *client),
            "no TLS at all": None,
        }
        for who, credentials in bad.items():
            async with Wire(one.grpc_address, credentials=credentials) as rude:
                code, _ = await ending(rude.call)
                assert code is grpc.StatusCode.UNAVAILABLE, who
        # Replicas show each other their own certificate.
        async with grpc.aio.secure_channel(two.grpc_address, good) as channel:
            admin = AdminStub(channel)  # type: ignore[no-untyped-call]
            answer = await admin.ListClients(admin_pb2.ListClientsRequest(), timeout=10)
            assert [found.node.id for found in answer.clients] == ["trusted"]
            assert list(answer.silent_replicas) == []
        await wire.register("b", port=8001)
        await wire.take("committed")
