"""What gRPC's users may say of a call, in all four kinds of calls, blocking and awaited."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from tests.support.authority import Authority
from tests.unit.sdk_grpc.shop import AwaitedCaller, BlockingCaller, Shop, serving
from tests.unit.sdk_http.known_mesh import endpoint_at

Caller = BlockingCaller | AwaitedCaller

NUMBERS = ["one", "two", "three"]
ANSWERS: dict[str, Any] = {
    "Charge": "a 42",
    "Watch": ["a 0", "a 1", "a 2"],
    "Upload": "one,two,three",
    "Talk": ["ONE", "TWO", "THREE"],
}
kinds = pytest.mark.parametrize("kind", ANSWERS)


async def ask(caller: Caller, stub: Any, kind: str, **options: Any) -> Any:
    if kind == "Charge":
        return (await caller.charge(stub, "42", **options))[0]
    if kind == "Watch":
        return [value async for value in caller.watch(stub, "all", **options)]
    return await (caller.upload if kind == "Upload" else caller.talk)(stub, NUMBERS, **options)


@kinds
async def test_metadata_and_a_deadline_are_sent(caller: Caller, shop: Shop, kind: str) -> None:
    async with caller.stub(caller.mesh(endpoint_at(shop.port))) as stub:
        assert await ask(caller, stub, kind, metadata=(("who", "me"),), timeout=10) == ANSWERS[kind]
    (seen,) = shop.seen
    assert (seen.method, seen.metadata["who"]) == (kind, "me")
    assert seen.remaining is not None
    assert 5 < seen.remaining < 11


@kinds
async def test_a_deadline_that_is_over_ends_the_call(caller: Caller, shop: Shop, kind: str) -> None:
    mesh = caller.mesh(endpoint_at(shop.port))
    async with caller.stub(mesh) as stub:
        with pytest.raises(caller.failed) as caught:
            await ask(caller, stub, kind, timeout=0)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    assert mesh.in_flight == 0


@kinds
async def test_messages_may_be_compressed(caller: Caller, shop: Shop, kind: str) -> None:
    async with caller.stub(caller.mesh(endpoint_at(shop.port)), compression=grpc.Compression.Gzip) as stub:
        assert await ask(caller, stub, kind) == ANSWERS[kind]
        assert await ask(caller, stub, kind, compression=grpc.Compression.Deflate) == ANSWERS[kind]


class Token(grpc.AuthMetadataPlugin):  # type: ignore[misc]
    """Signs each call."""

    def __call__(self, context: Any, callback: Any) -> None:
        callback((("authorization", f"token for {context.method_name}"),), None)


@kinds
async def test_credentials_of_channel_and_call_are_used(caller: Caller, tmp_path: Path, kind: str) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("orders")
    trust = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    signing = grpc.metadata_call_credentials(Token())
    with serving("a", grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])) as shop:
        async with caller.stub(caller.mesh(endpoint_at(shop.port)), credentials=trust) as stub:
            assert await ask(caller, stub, kind, credentials=signing) == ANSWERS[kind]
        assert shop.seen[0].metadata["authorization"] == f"token for {kind}"


def begun(caller: Caller, stub: Any, kind: str, going_on: threading.Event) -> Any:
    """A call of each kind that does not end by itself."""

    def requests() -> Iterator[StringValue]:
        going_on.wait(10)
        yield from ()

    takes_stream = kind in ("Upload", "Talk")
    asked = StringValue(value="hang" if kind == "Charge" else "pause at 0")
    method = getattr(stub, kind)
    if isinstance(caller, AwaitedCaller):
        return method() if takes_stream else method(asked)
    if kind in ("Charge", "Upload"):
        method = method.future
    return method(requests() if takes_stream else asked)


@kinds
async def test_a_call_can_be_cancelled(caller: Caller, shop: Shop, kind: str) -> None:
    mesh, going_on = caller.mesh(endpoint_at(shop.port)), threading.Event()
    async with caller.stub(mesh) as stub:
        call = begun(caller, stub, kind, going_on)
        try:
            async with asyncio.timeout(10):
                while not shop.seen:
                    await asyncio.sleep(0.01)
            assert call.cancel()
            assert await caller.told(call.code) is grpc.StatusCode.CANCELLED
        finally:
            going_on.set()
    assert mesh.in_flight == 0
    assert mesh.outcomes == []
