"""The supervised stream: several servers, servers that die, hang, move one on, or refuse."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from trimtab import Mesh, NoEndpoints
from trimtab.v1.mesh_pb2 import ServerMessage
from trimtab.v1.types_pb2 import Error

from tests.component.sdk.conftest import MakeMesh, until
from tests.support.fake_mesh import FakeMesh, FakeStore, endpoint

ORDERS = "default/orders"


@pytest.fixture
def pair() -> Iterator[tuple[FakeMesh, FakeMesh]]:
    """Two replicas of one store."""
    store = FakeStore()
    with FakeMesh(store, name="one") as one, FakeMesh(store, name="two") as two:
        yield one, two


def connected_to(mesh: Mesh) -> str:
    status = mesh.status()
    return status.replica if status.connected else ""


def test_calls_go_on_while_the_server_is_away_and_news_come_with_its_return(make_mesh: MakeMesh) -> None:
    store = FakeStore()
    with FakeMesh(store) as first:
        store.put(ORDERS, endpoint("a"))
        mesh = make_mesh(first)
        mesh.wait_ready("orders")
        port = first.port
    until(lambda: not mesh.status().connected)
    assert mesh.status().stale
    for _ in range(100):
        with mesh.pick("orders") as pick:
            assert pick.endpoint.id == "a"
    store.put(ORDERS, endpoint("b"))
    with FakeMesh(store, port=port):
        until(lambda: len(mesh.endpoints("orders")) == 2)
        assert not mesh.status().stale
        assert mesh.status().lag == 0.0
        mesh.close()


def test_a_client_that_is_up_to_date_is_sent_nothing_again(make_mesh: MakeMesh) -> None:
    store = FakeStore()
    with FakeMesh(store) as first:
        store.put(ORDERS, endpoint("a"))
        mesh = make_mesh(first)
        mesh.wait_ready("orders")
        version = mesh.service("orders").version
        port = first.port
    with FakeMesh(store, port=port) as second:
        until(lambda: mesh.status().connected and len(second.sent("heartbeat")) >= 2)
        assert second.sent("hello")[0].subscriptions[0].version == version
        assert not second.sent("ack")
        mesh.close()


def test_when_a_replica_dies_the_other_is_taken_within_the_grace(
    make_mesh: MakeMesh, pair: tuple[FakeMesh, FakeMesh]
) -> None:
    mesh = make_mesh(*pair)
    registration = mesh.register("web", 9000)
    dying = pair[0] if connected_to(mesh) == "one" else pair[1]
    other = pair[1] if dying is pair[0] else pair[0]
    dying.stop()
    until(lambda: connected_to(mesh) == other.name, timeout=2)
    until(lambda: mesh.status().session_state == "attached")
    assert registration.registered
    assert not other.sent("register")
    assert other.store.ids("default/web") == {"127.0.0.1-9000"}


def test_the_choice_of_a_server_is_kept_while_it_works(make_mesh: MakeMesh, pair: tuple[FakeMesh, FakeMesh]) -> None:
    mesh = make_mesh(*pair)
    mesh.subscribe("orders")
    until(lambda: mesh.status().connected)
    chosen = connected_to(mesh)
    both = pair[0].sent("heartbeat"), pair[1].sent("heartbeat")
    until(lambda: max(len(pair[0].sent("heartbeat")), len(pair[1].sent("heartbeat"))) >= 4)
    assert connected_to(mesh) == chosen
    assert mesh.status().connects == 1
    assert not any(both)


def test_clients_spread_over_the_replicas(make_mesh: MakeMesh, pair: tuple[FakeMesh, FakeMesh]) -> None:
    meshes = [make_mesh(*pair) for _ in range(10)]
    for mesh in meshes:
        mesh.subscribe("orders")
    until(lambda: all(mesh.status().connected for mesh in meshes))
    assert {connected_to(mesh) for mesh in meshes} == {"one", "two"}


def test_a_server_that_accepts_and_says_nothing_is_left_for_the_next(make_mesh: MakeMesh) -> None:
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    with silent, FakeMesh() as server, FakeMesh() as mute:
        mute.mute = True
        server.store.put(ORDERS, endpoint("a"))
        for dumb in (f"127.0.0.1:{silent.getsockname()[1]}", mute.address):
            mesh = make_mesh(dumb, server, discovery_timeout=30)
            mesh._engine.wake()
            # Whichever of the two was tried first: the one that answers is found within the Welcome's deadline.
            with mesh.pick("orders") as pick:
                assert pick.endpoint.id == "a"
            mesh.close()


def test_a_request_to_leave_is_followed_without_a_gap(make_mesh: MakeMesh, pair: tuple[FakeMesh, FakeMesh]) -> None:
    mesh = make_mesh(*pair)
    registration = mesh.register("web", 9000)
    leaving = pair[0] if connected_to(mesh) == "one" else pair[1]
    staying = pair[1] if leaving is pair[0] else pair[0]
    stop, gaps = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            if not mesh.status().connected:
                gaps.append(time.monotonic())
            time.sleep(0.001)

    watcher = threading.Thread(target=look)
    watcher.start()
    leaving.go_away(spread=0.2)
    until(lambda: connected_to(mesh) == staying.name)
    until(lambda: mesh.status().session_state == "attached")
    stop.set()
    watcher.join(5)
    assert not gaps
    until(lambda: not leaving.streams)
    assert registration.registered
    assert not staying.sent("register")
    assert not leaving.sent("goodbye")


def test_a_lost_stream_is_opened_again_at_once(make_mesh: MakeMesh, server: FakeMesh) -> None:
    mesh = make_mesh(server)
    mesh.register("web", 9000)
    server.cut()
    start = time.monotonic()
    until(lambda: mesh.status().connects == 2, timeout=5)
    # At once by design; the bound leaves room for a busy machine.
    assert time.monotonic() - start < 2.0


def test_a_server_that_ends_every_stream_is_not_hammered(make_mesh: MakeMesh, server: FakeMesh) -> None:
    server.intercept = lambda stream, message: (
        message.WhichOneof("message") == "hello" and (stream.outbox.put(grpc.StatusCode.UNAVAILABLE) or True)
    )
    mesh = make_mesh(server)
    mesh.subscribe("orders")
    time.sleep(1.5)
    assert 2 <= len(server.sent("hello")) <= 30


def test_a_message_before_the_welcome_ends_the_stream(make_mesh: MakeMesh, server: FakeMesh) -> None:
    spoiled = threading.Event()

    def intercept(stream: object, message: object) -> bool:
        if spoiled.is_set():
            return False
        spoiled.set()
        server.send(ServerMessage(error=Error(code="server.internal", message="out of turn")))
        return True

    server.intercept = intercept
    server.store.put(ORDERS, endpoint("a"))
    mesh = make_mesh(server)
    until(lambda: mesh.status().connected or mesh.subscribe("orders"))
    mesh.wait_ready("orders")


def test_a_handle_that_the_server_refuses_is_given_up(make_mesh: MakeMesh, server: FakeMesh) -> None:
    mesh = make_mesh(server)
    registration = mesh.register("web", 9000)
    server.store.expire(server.streams[0].handle)
    server.status = (grpc.StatusCode.INVALID_ARGUMENT, Error(code="session.invalid", message="unknown handle"))
    server.cut()
    until(lambda: "session.invalid" in mesh.status().last_error)
    server.status = None
    until(lambda: registration.registered and server.store.ids("default/web"))
    assert server.sent("hello")[-1].resume == ""


def test_a_wrong_token_is_named_and_a_right_one_works(make_mesh: MakeMesh) -> None:
    with FakeMesh(token="secret") as server:
        server.store.put(ORDERS, endpoint("a"))
        mesh = make_mesh(server, token="wrong")
        with pytest.raises(NoEndpoints, match=r"access\.unauthenticated: wrong token"):
            mesh.pick("orders")
        assert make_mesh(server, token="secret").pick("orders").endpoint.id == "a"


def test_a_port_that_speaks_something_else_is_named(make_mesh: MakeMesh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            while True:
                try:
                    accepted, _ = other.accept()
                except OSError:
                    return
                with accepted:
                    accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        speaker = threading.Thread(target=answer, daemon=True)
        speaker.start()
        mesh = make_mesh(f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(NoEndpoints, match=r"no connection to .* \(grpc\."):
            mesh.pick("orders")
        mesh.close()
        other.shutdown(socket.SHUT_RDWR)
    speaker.join(5)


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """Write a self-signed certificate for 127.0.0.1 and its key. Returns their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = directory / f"{name}.pem", directory / f"{name}.key"
    cert_path.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_path, key_path


def test_tls_with_client_certificates(make_mesh: MakeMesh, tmp_path: Path) -> None:
    server_cert, server_key = certificate(tmp_path, "server")
    client_cert, client_key = certificate(tmp_path, "client")
    credentials = grpc.ssl_server_credentials(
        [(server_key.read_bytes(), server_cert.read_bytes())], client_cert.read_bytes(), require_client_auth=True
    )
    with FakeMesh(credentials=credentials) as server:
        server.store.put(ORDERS, endpoint("a"))
        mesh = make_mesh(server, ca=server_cert, cert=client_cert, key=client_key)
        assert mesh.pick("orders").endpoint.id == "a"
        stranger_cert, stranger_key = certificate(tmp_path, "stranger")
        stranger = make_mesh(server, ca=server_cert, cert=stranger_cert, key=stranger_key)
        with pytest.raises(NoEndpoints, match="no connection"):
            stranger.pick("orders")
        trusting_another = make_mesh(server, ca=stranger_cert, cert=client_cert, key=client_key)
        with pytest.raises(NoEndpoints, match="no connection"):
            trusting_another.pick("orders")
