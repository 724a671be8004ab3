"""Who may speak: the token, certificates of both sides, and what needs neither."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from trimtab.v1 import admin_pb2, registry_pb2
from trimtab.v1.admin_pb2_grpc import AdminStub
from trimtab.v1.registry_pb2_grpc import RegistryStub

from tests.component.rpc.conftest import StartPlane
from tests.component.rpc.wire import Wire, ending, error_in

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


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files and as bytes."""

    cert: Path
    key: Path

    @property
    def credentials(self) -> tuple[bytes, bytes]:
        return self.key.read_bytes(), self.cert.read_bytes()


@pytest.fixture(scope="module")
def issue(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """``issue(name, by=pair)``: a certificate for 127.0.0.1; without ``by``, an authority of its own."""
    directory = tmp_path_factory.mktemp("certificates")

    def make(name: str, by: Pair | None = None) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, signer = subject, key
        if by is not None:
            issuer = x509.load_pem_x509_certificate(by.cert.read_bytes()).subject
            loaded = serialization.load_pem_private_key(by.key.read_bytes(), None)
            assert isinstance(loaded, ec.EllipticCurvePrivateKey)
            signer = loaded
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
            .sign(signer, hashes.SHA256())
        )
        pair = Pair(directory / f"{name}.pem", directory / f"{name}.key")
        pair.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair

    return make


async def test_certificates_are_asked_of_both_sides(start_plane: StartPlane, issue: Callable[..., Pair]) -> None:
    ours, theirs = issue("our-authority"), issue("their-authority")
    server, client, stranger = issue("server", ours), issue("client", ours), issue("stranger", theirs)
    tls = {"tls_cert": server.cert, "tls_key": server.key, "tls_client_ca": ours.cert}
    one = await start_plane(**tls)
    two = await start_plane(**tls)
    good = grpc.ssl_channel_credentials(ours.cert.read_bytes(), *client.credentials)
    async with Wire(one.grpc_address, credentials=good) as wire:
        await wire.hello("trusted")
        await wire.enrol("a")
        bad = {
            "no certificate": grpc.ssl_channel_credentials(ours.cert.read_bytes()),
            "a stranger's": grpc.ssl_channel_credentials(ours.cert.read_bytes(), *stranger.credentials),
            "distrusts the server": grpc.ssl_channel_credentials(theirs.cert.read_bytes(), *client.credentials),
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
