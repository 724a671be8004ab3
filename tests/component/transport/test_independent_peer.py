"""Another implementation of HTTP/2 checks every byte that we send, through a whole streaming call."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, TrailersReceived
from h2.settings import SettingCodes

from controlplane.transport.call import Call
from tests.component.transport.conftest import PATIENCE, PREFIX, Serve, Served
from tests.component.transport.raw import message, opening


class Peer:
    """A client on h2: whatever we send that the protocol does not allow is an exception here."""

    def __init__(self, **given: int) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes[name]: value for name, value in given.items()})
        self.events: list[Any] = []
        self.data = bytearray()
        self.trailers: dict[str, str] = {}

    async def connect(self, served: Served) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", served.port)
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def say(self, stream: int, payload: bytes, *, last: bool = False) -> None:
        """A whole message, as the windows allow."""
        rest = message(payload)
        while rest:
            while not (room := min(self.h2.local_flow_control_window(stream), 16_384, len(rest))):
                assert await self.pump()
            self.h2.send_data(stream, rest[:room], end_stream=last and room == len(rest))
            rest = rest[room:]
            self.flush()

    async def pump(self) -> bool:
        """Take what came; whether the connection goes on."""
        async with asyncio.timeout(PATIENCE):
            came = await self.reader.read(65_536)
        for event in self.h2.receive_data(came):
            self.events.append(event)
            if isinstance(event, DataReceived):
                self.data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, TrailersReceived):
                self.trailers = {str(name): str(value) for name, value in event.headers}
        self.flush()
        return bool(came)

    def saw(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.mark.parametrize(
    "given",
    [{}, {"INITIAL_WINDOW_SIZE": 1_000}, {"MAX_FRAME_SIZE": 100_000, "INITIAL_WINDOW_SIZE": 1_000_000}],
    ids=["plain", "narrow", "wide"],
)
async def test_a_whole_call_is_what_http2_allows(given: dict[str, int], serve: Serve) -> None:
    async def greet(requests: Any, call: Call) -> Any:
        async for request in requests:
            yield request + request
        call.set_trailing_metadata((("mood-bin", b"\xff" * 100), ("colour", "grey" * 100)))
        call.set_code(grpc.StatusCode.ALREADY_EXISTS)
        call.set_details("dèjà vu %")

    served = await serve(Greet=grpc.stream_stream_rpc_method_handler(greet))
    peer = Peer(**given)
    await peer.connect(served)
    peer.h2.send_headers(1, opening(PREFIX + "Greet"))
    peer.flush()
    texts = [b"", b"a", bytes(70_000), b"b" * 16_384]
    for text in texts:
        await peer.say(1, text, last=text is texts[-1])
    while not peer.saw(StreamEnded):
        assert await peer.pump()
    assert bytes(peer.data) == b"".join(message(text + text) for text in texts)
    (response,) = peer.saw(ResponseReceived)
    assert dict(response.headers)["content-type"] == "application/grpc"
    assert (peer.trailers["grpc-status"], peer.trailers["grpc-message"]) == ("6", "d%C3%A8j%C3%A0 vu %25")

    peer.h2.send_headers(3, opening(PREFIX + "Unknown"))
    peer.h2.send_headers(5, [(n, "GET" if n == ":method" else v) for n, v in opening("/")], end_stream=True)
    peer.h2.ping(b"12345678")
    peer.h2.send_headers(7, opening(PREFIX + "Echo"))
    await peer.say(7, b"once more", last=True)
    while len(peer.saw(StreamEnded)) < 4:
        assert await peer.pump()
    stopping = asyncio.create_task(served.server.stop(0))
    while await peer.pump():
        continue
    (away,) = peer.saw(ConnectionTerminated)
    assert (away.error_code, away.last_stream_id) == (0, 7)
    peer.writer.close()
    await stopping
