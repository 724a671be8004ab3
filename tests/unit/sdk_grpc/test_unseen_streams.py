"""Streams that a callee turned away: what gRPC itself knows to be unseen is sent again, whatever the policy says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from h2.errors import ErrorCodes
from trimtab.grpc.blocking import channel

from tests.unit.sdk_grpc.shop import RETRIED
from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at

ANSWER = [(":status", "200"), ("content-type", "application/grpc")]


class Reluctant:
    """An HTTP/2 server that turns its first stream away, and answers every other one."""

    def __init__(self, how: str) -> None:
        self._how = how
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.streams = 0

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._serve(connection)

    def close(self) -> None:
        # Closing alone would not wake up who waits for a connection.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, wire: socket.socket) -> None:
        peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        peer.initiate_connection()
        wire.sendall(peer.data_to_send())
        while received := wire.recv(65536):
            for event in peer.receive_data(received):
                if isinstance(event, h2.events.StreamEnded):
                    assert event.stream_id is not None
                    self.streams += 1
                    if self.streams == 1 and self._how == "GOAWAY":
                        peer.close_connection(ErrorCodes.NO_ERROR, last_stream_id=0)
                        wire.sendall(peer.data_to_send())
                        return
                    if self.streams == 1:
                        peer.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
                    else:
                        peer.send_headers(event.stream_id, ANSWER)
                        peer.send_data(event.stream_id, b"\0\0\0\0\2ok")
                        peer.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
            wire.sendall(peer.data_to_send())


@contextmanager
def reluctant(how: str) -> Iterator[Reluctant]:
    server = Reluctant(how)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(10)


def test_a_stream_that_was_unseen_when_its_connection_went_away_is_sent_again() -> None:
    with reluctant("GOAWAY") as server:
        mesh = KnownMesh(endpoint_at(server.port), policy="default: {retry: off}")
        with channel(mesh, "orders") as orders:
            assert orders.unary_unary("/shop.Orders/Charge")(b"42", timeout=20) == b"ok"
    assert server.streams == 2
    assert mesh.outcomes == [("a", True)]


def test_a_refused_stream_is_an_unavailable_like_any_other() -> None:
    with reluctant("REFUSED_STREAM") as server:
        mesh = KnownMesh(endpoint_at(server.port))
        with channel(mesh, "orders") as orders:
            # gRPC's words for it are no proof: the callee may hand them on from a callee of its own.
            with pytest.raises(grpc.RpcError) as caught:
                orders.unary_unary("/shop.Orders/Charge")(b"42", timeout=20)
            assert caught.value.trimtab.outcome.sent  # type: ignore[attr-defined]
    with reluctant("REFUSED_STREAM") as server:
        mesh = KnownMesh(endpoint_at(server.port), policy=RETRIED)
        with channel(mesh, "orders") as orders:
            assert orders.unary_unary("/shop.Orders/Charge")(b"42", timeout=20) == b"ok"
