"""What gRPC's words mean, above all: whether a call was ever sent."""

from __future__ import annotations

import socket

import grpc
import pytest
from trimtab.core.endpoints import Endpoint, Health
from trimtab.errors import DeadlineExceeded
from trimtab.grpc.blocking import channel
from trimtab.grpc.failures import AioCallFailed, CallFailed, Code, Substituted, refusal
from trimtab.grpc.meaning import Status, marked, never_sent

from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at, refusing_endpoint

HERE = endpoint_at(50051)
V6 = Endpoint("v6", "::1", 50051, 100, Health.HEALTHY, "", {})
NAMED = Endpoint("named", "orders.internal", 50051, 100, Health.HEALTHY, "", {})


@pytest.mark.parametrize(
    ("details", "endpoint"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:50051: "
            "Failed to connect to remote host: Connection refused",
            HERE,
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv6:%5B::1%5D:50051: "
            "Failed to connect to remote host: Connection refused",
            V6,
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:50051: "
            "connection attempt timed out before receiving SETTINGS frame",
            NAMED,
        ),
        ("errors resolving orders.internal:50051: [field:hostname lookup error:…]", NAMED),
        ("DNS resolution failed for orders.internal:50051: C-ares status is not ARES_SUCCESS", NAMED),
    ],
)
def test_a_connection_that_was_never_made_is_known_by_the_endpoints_own_address(
    details: str, endpoint: Endpoint
) -> None:
    assert never_sent(details, endpoint)


@pytest.mark.parametrize(
    "details",
    [
        "",
        "Stream removed (Socket closed)",
        "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))",
        # What the callee's own callee refused, handed on by the callee word for word.
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:9999: "
        "Failed to connect to remote host: Connection refused",
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:50051: "
        "Failed to connect to remote host: Connection refused",
        "errors resolving payments.internal:50051: […]",
    ],
)
def test_whatever_else_is_said_may_have_been_seen_by_the_callee(details: str) -> None:
    assert not never_sent(details, HERE)


def test_grpc_still_says_it_in_those_words() -> None:
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    held.listen()
    mute = endpoint_at(held.getsockname()[1])
    # Connections are made there, but nobody ever speaks HTTP/2.
    options = [("grpc.min_reconnect_backoff_ms", 100)]
    for endpoint in (refusing_endpoint("dead"), mute):
        with channel(KnownMesh(endpoint), "orders", options=options) as orders, pytest.raises(grpc.RpcError) as caught:
            orders.unary_unary("/shop.Orders/Charge")(b"", timeout=20)
        outcome = caught.value.trimtab.outcome  # type: ignore[attr-defined]
        assert (outcome.condition, outcome.sent) == ("connect-failure", False)
    held.close()


def test_an_idempotency_key_is_known_in_any_case() -> None:
    assert marked((("Idempotency-Key", "1"),))
    assert not marked((("key", "1"),))
    assert not marked(None)


def test_the_code_of_an_error_answers_both_who_may_ask() -> None:
    error = refusal(DeadlineExceeded("too late"), AioCallFailed)
    assert isinstance(error, DeadlineExceeded)
    assert error.code == "call.deadline_exceeded"
    assert isinstance(error.code, Code)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    own = LookupError()
    assert refusal(own, CallFailed) is own


def test_an_error_is_a_call_of_grpc_that_is_over() -> None:
    error = CallFailed(Status(grpc.StatusCode.ABORTED, "no", (("a", "1"),), (("b", "2"),)))
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "no")
    assert (error.initial_metadata(), error.trailing_metadata()) == ((("a", "1"),), (("b", "2"),))
    assert error.done()
    assert not error.cancel()
    assert not error.cancelled()
    assert not error.running()
    assert not error.is_active()
    assert error.time_remaining() is None
    assert error.exception() is error
    assert str(error) == "ABORTED: no"
    told: list[object] = []
    error.add_done_callback(told.append)
    assert told == [error]
    with pytest.raises(CallFailed):
        error.result()
    call = KnownMesh(HERE).service.pipeline("").begin(0.0)
    answer = Substituted("instead", call)
    assert (answer.result(), answer.code(), answer.exception()) == ("instead", grpc.StatusCode.OK, None)
