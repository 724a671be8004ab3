"""Bytes: a spliced delta is the message that protobuf would have built, and each resource is encoded once."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from trimtab.v1 import mesh_pb2, types_pb2

from controlplane.core.model import Stored
from controlplane.core.resource import ResourceKind, ResourceName
from controlplane.core.subscription import Outgoing, Subscriptions
from controlplane.core.view import View
from controlplane.rpc import encoder as encoding
from controlplane.rpc.encoder import Encoder, varint
from tests.unit.core import nouns
from tests.unit.core.nouns import APP_CONFIG, ORDERS_ENDPOINTS, gone, instance, registered

NEVER = ResourceName(ResourceKind.ENDPOINTS, "default/never")


def a_view() -> View:
    view = View()
    view.load(1, [])
    for number in range(5):
        view.apply(number + 2, [registered(instance(f"i{number}", port=8000 + number), number + 2)])
    view.apply(7, [nouns.released(b"a: 1", 7)])
    view.apply(8, [gone(instance("i0").ref, 8)])
    view.apply(9, [nouns.suspected("i1", revision=9)])
    return view


def parsed(raw: bytes) -> mesh_pb2.Delta:
    message = mesh_pb2.ServerMessage.FromString(raw)
    assert message.WhichOneof("message") == "delta"
    assert message.SerializeToString() == raw, "the splice is not the canonical encoding"
    return message.delta


def test_a_spliced_delta_is_the_message_that_protobuf_would_build() -> None:
    view = a_view()
    delta = parsed(
        Encoder(view).delta(300, [Outgoing(ORDERS_ENDPOINTS, 6, 6), Outgoing(APP_CONFIG, 0, 0), Outgoing(NEVER, 0, 0)])
    )
    endpoints = view.endpoints("default/orders")
    assert endpoints is not None
    i1 = types_pb2.Endpoint(id="i1", address="10.0.0.1", port=8001, weight=100, health=types_pb2.HEALTH_SUSPECT)
    config = view.resource(APP_CONFIG)
    assert config is not None
    assert delta == mesh_pb2.Delta(
        nonce=300,
        version=9,
        resources=[
            types_pb2.Resource(
                kind=types_pb2.KIND_ENDPOINTS,
                name="default/orders",
                version=9,
                digest=endpoints.digest,
                endpoints=types_pb2.Endpoints(base=6, changed=[i1], removed=["i0"], total=4, protected=True),
            ),
            types_pb2.Resource(
                kind=types_pb2.KIND_CONFIG,
                name="default/orders/app.yaml",
                version=7,
                digest=config.digest,
                config=types_pb2.Config(format="text", content=b"a: 1"),
            ),
            types_pb2.Resource(kind=types_pb2.KIND_ENDPOINTS, name="default/never", version=9),
        ],
    )


def test_the_whole_says_so_and_has_no_base() -> None:
    (resource,) = parsed(Encoder(a_view()).delta(1, [Outgoing(ORDERS_ENDPOINTS, 0, 0)])).resources
    assert resource.endpoints.full
    assert resource.endpoints.base == 0
    assert [endpoint.id for endpoint in resource.endpoints.changed] == ["i1", "i2", "i3", "i4"]
    assert resource.endpoints.total == 4


def test_a_base_that_is_too_old_gets_the_whole() -> None:
    view = View()
    view.load(100, [nouns.held(instance("a"), revision=50)])
    (resource,) = parsed(Encoder(view).delta(1, [Outgoing(ORDERS_ENDPOINTS, 60, 60)])).resources
    assert (resource.endpoints.full, resource.endpoints.base) == (True, 0)


@given(st.integers(0, 2**63))
def test_varints_are_those_of_protobuf(value: int) -> None:
    # Field 1 of Delta is a varint: its tag is one byte.
    assert mesh_pb2.Delta(nonce=value).SerializeToString()[1:] == (varint(value) if value else b"")


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of every resource that is encoded."""
    counted: list[str] = []
    element = encoding._element

    def counting(message: types_pb2.Resource) -> bytes:
        assert isinstance(message, Message)
        counted.append(message.name)
        return element(message)

    monkeypatch.setattr(encoding, "_element", counting)
    return counted


def test_each_resource_is_encoded_once_for_a_thousand_streams(encodings: list[str]) -> None:
    view = a_view()
    encoder = Encoder(view)
    streams = [Subscriptions() for _ in range(1000)]
    for stream in streams:
        stream.subscribe(ORDERS_ENDPOINTS, 0, 0)
        stream.subscribe(APP_CONFIG, 0, 0)
        encoder.delta(*stream.take(view, 0.0))
    assert sorted(encodings) == ["default/orders", "default/orders/app.yaml"]
    encodings.clear()
    view.apply(10, [registered(instance("new"), 10)])
    for stream in streams:
        stream.enqueue(ORDERS_ENDPOINTS, 0.0)
        encoder.delta(*stream.take(view, 0.0))
    assert encodings == ["default/orders"]


def test_clients_that_come_back_with_a_thousand_old_versions_share_one_whole(encodings: list[str]) -> None:
    view = View()
    view.load(5000, [nouns.held(instance("a"), revision=50), *_released()])
    encoder = Encoder(view)
    for version in range(1, 1001):
        encoder.delta(1, [Outgoing(ORDERS_ENDPOINTS, version, version), Outgoing(APP_CONFIG, version, version)])
    assert sorted(encodings) == ["default/orders", "default/orders/app.yaml"]


def test_only_the_newest_content_is_kept(encodings: list[str]) -> None:
    view = a_view()
    encoder = Encoder(view)
    for revision in range(10, 60):
        view.apply(revision, [registered(instance("i1", weight=revision), revision)])
        encoder.delta(1, [Outgoing(ORDERS_ENDPOINTS, revision - 1, revision - 1)])
    assert len(encodings) == 50
    assert sum(len(cached) for _, cached in encoder._cache.values()) == 1


def _released() -> list[Stored]:
    stored = nouns.released(b"1", 60).stored
    assert stored is not None
    return [stored]
