"""TLS: by credentials of the channel, by what endpoints say of themselves, and with credentials of single calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.authority import Authority
from tests.unit.sdk_grpc.shop import AwaitedCaller, BlockingCaller, serving
from tests.unit.sdk_http.known_mesh import endpoint_at

Caller = BlockingCaller | AwaitedCaller


class Token(grpc.AuthMetadataPlugin):  # type: ignore[misc]
    """Signs each call."""

    def __call__(self, context: Any, callback: Any) -> None:
        callback((("authorization", f"token for {context.method_name}"),), None)


async def test_calls_are_signed_over_tls(caller: Caller, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("orders")
    trust = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    with serving("a", grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])) as shop:
        mesh = caller.mesh(endpoint_at(shop.port))
        async with caller.stub(mesh, credentials=trust) as stub:
            await caller.charge(stub, "42", credentials=grpc.metadata_call_credentials(Token()))
        assert shop.seen[0].metadata["authorization"] == "token for Charge"
        signed = grpc.composite_channel_credentials(trust, grpc.metadata_call_credentials(Token()))
        async with caller.stub(mesh, credentials=signed) as stub:
            assert [value async for value in caller.watch(stub, "all")] == ["a 0", "a 1", "a 2"]
        assert shop.seen[1].metadata["authorization"] == "token for Watch"


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
async def test_an_endpoint_says_of_itself_that_it_speaks_tls(
    caller: Caller, tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("orders")
    trust = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    monkeypatch.setattr(grpc, "ssl_channel_credentials", lambda: trust)
    with serving("a", grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])) as shop:
        async with caller.stub(caller.mesh(endpoint_at(shop.port, scheme=scheme))) as stub:
            assert (await caller.charge(stub, "42"))[0] == "a 42"


async def test_a_certificate_that_is_not_trusted_is_a_connection_that_was_never_made(
    caller: Caller, tmp_path: Path
) -> None:
    certificate, key = Authority(tmp_path, "theirs").issue("orders")
    trust = grpc.ssl_channel_credentials(Authority(tmp_path, "ours").ca.read_bytes())
    with serving("a", grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])) as shop:
        async with caller.stub(caller.mesh(endpoint_at(shop.port)), credentials=trust) as stub:
            with pytest.raises(caller.failed) as caught:
                await caller.charge(stub, "42")
        assert not shop.seen
    call: Any = caught.value.trimtab  # type: ignore[attr-defined]
    assert call.outcome.condition == "connect-failure"
