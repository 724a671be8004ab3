"""One gRPC stream to one server: a channel of its own, a reader thread, an outbox that never blocks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from trimtab.errors import Refused, Violation
from trimtab.settings import Settings
from trimtab.v1.mesh_pb2 import ClientMessage, ServerMessage
from trimtab.v1.types_pb2 import Error

_METHOD = "/trimtab.v1.Mesh/Connect"
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # The process-wide pool shares its reconnect backoff among channels; ours is the supervisor's alone.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


@dataclass(frozen=True, slots=True)
class Received:
    """A message arrived."""

    connection: Connection
    message: ServerMessage


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream is over. ``refusal`` is None when the server ended it with OK."""

    connection: Connection
    refusal: Refused | None


class Connection:
    """A stream being opened or open. What happens on it goes to ``deliver``, called by its own thread."""

    def __init__(self, server: str, settings: Settings, deliver: Callable[[Received | Ended], None]) -> None:
        self.server = server
        self._deliver = deliver
        self._outbox: queue.SimpleQueue[ClientMessage | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._channel = _channel(server, settings)
        metadata = (("authorization", f"Bearer {settings.token}"),) if settings.token else ()
        connect = self._channel.stream_stream(
            _METHOD,
            request_serializer=ClientMessage.SerializeToString,
            response_deserializer=ServerMessage.FromString,
        )
        self._call: Any = connect(self._outgoing(), metadata=metadata)
        self._reader = threading.Thread(target=self._read, name=f"trimtab-read-{server}", daemon=True)
        self._reader.start()

    def send(self, message: ClientMessage) -> None:
        """Queue a message. Does nothing once the stream is over."""
        self._outbox.put(message)

    def close(self) -> None:
        """End the stream at once; ``Ended`` is still delivered."""
        self._outbox.put(None)
        self._call.cancel()
        self._channel.close()

    def join(self, timeout: float) -> None:
        """Wait for the threads of this stream, after ``close``."""
        for thread in (self._reader, self._writer):
            if thread is not None and thread is not threading.current_thread():
                thread.join(timeout)

    def _outgoing(self) -> Iterator[ClientMessage]:
        # gRPC draws from this on a thread of its own, which must be gone before the process forks or exits.
        self._writer = threading.current_thread()
        while (message := self._outbox.get()) is not None:
            yield message

    def _read(self) -> None:
        refusal: Refused | None = None
        try:
            for message in self._call:
                self._deliver(Received(self, message))
        except grpc.RpcError as error:
            refusal = _refusal(error)
        except ValueError as error:
            # gRPC raises it when the channel is closed between two reads.
            refusal = Refused("stream.closed", str(error), retryable=True)
        finally:
            self._outbox.put(None)
            self._deliver(Ended(self, refusal))


def _channel(server: str, settings: Settings) -> grpc.Channel:
    if settings.tls is None:
        return grpc.insecure_channel(server, options=_OPTIONS)
    tls = settings.tls
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert)
    return grpc.secure_channel(server, credentials, options=_OPTIONS)


def _refusal(error: Any) -> Refused:
    """Return what a status says, in the server's own words when its trailer carries them."""
    trailers = dict(error.trailing_metadata() or ())
    packed = trailers.get("trimtab-error-bin")
    if isinstance(packed, bytes):
        try:
            return refused(Error.FromString(packed))
        except DecodeError:
            return Refused("request.malformed", "the server's error cannot be read", retryable=True)
    code = error.code()
    name = code.name.lower() if code is not None else "unknown"
    known = {"unauthenticated": "access.unauthenticated", "permission_denied": "access.denied"}
    return Refused(known.get(name, f"grpc.{name}"), error.details() or name, retryable=name not in known)


def refused(error: Error) -> Refused:
    """Return a server's Error as an exception."""
    violations = [Violation(v.path, v.message, v.hint) for v in error.violations]
    return Refused(error.code, error.message, hint=error.hint, violations=violations, retryable=error.retryable)
