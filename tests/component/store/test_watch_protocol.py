"""What other versions of etcd say on a watch stream, from a scripted server: progress, fragments, time travel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import grpc
import pytest

from controlplane.errors import Code, TrimtabError
from controlplane.store.etcd import EtcdOptions, EtcdStore
from controlplane.store.etcd import rpc_pb2 as pb
from controlplane.store.port import WatchBatch

REVISION = 100
OUR_WATCH = 0
ASKED_FOR = -1


def event(revision: int, key: str = "k") -> pb.Event:
    return pb.Event(kv=pb.KeyValue(key=key.encode(), mod_revision=revision))


def said(
    *events: pb.Event, revision: int = REVISION, watch_id: int = OUR_WATCH, fragment: bool = False
) -> pb.WatchResponse:
    header = pb.ResponseHeader(revision=revision)
    return pb.WatchResponse(header=header, watch_id=watch_id, events=events, fragment=fragment)


class Script:
    """An etcd of some version that answers every watch with the same responses, and requests for progress or not."""

    def __init__(self) -> None:
        self.version = "3.5.16"
        self.responses: list[pb.WatchResponse] = []
        self.progress: pb.WatchResponse | None = None
        self.starts: list[int] = []
        self.asked = 0

    async def status(self, _: pb.StatusRequest, __: object) -> pb.StatusResponse:
        return pb.StatusResponse(version=self.version, leader=1)

    async def read(self, _: pb.RangeRequest, __: object) -> pb.RangeResponse:
        return pb.RangeResponse(header=pb.ResponseHeader(revision=REVISION))

    async def watch(self, requests: AsyncIterator[pb.WatchRequest], _: object) -> AsyncIterator[pb.WatchResponse]:
        async for request in requests:
            if request.HasField("create_request"):
                self.starts.append(request.create_request.start_revision)
                yield pb.WatchResponse(header=pb.ResponseHeader(revision=REVISION), created=True)
                for response in self.responses:
                    yield response
            else:
                self.asked += 1
                if self.progress is not None:
                    yield self.progress

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        def unary(method: Callable[..., object], request: type, answer: type) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(method, request.FromString, answer.SerializeToString)

        stream = grpc.stream_stream_rpc_method_handler(
            self.watch, pb.WatchRequest.FromString, pb.WatchResponse.SerializeToString
        )
        return [
            grpc.method_handlers_generic_handler(
                "etcdserverpb.Maintenance", {"Status": unary(self.status, pb.StatusRequest, pb.StatusResponse)}
            ),
            grpc.method_handlers_generic_handler(
                "etcdserverpb.KV", {"Range": unary(self.read, pb.RangeRequest, pb.RangeResponse)}
            ),
            grpc.method_handlers_generic_handler("etcdserverpb.Watch", {"Watch": stream}),
        ]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def store(script: Script) -> AsyncIterator[EtcdStore]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(script.handlers())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    store = EtcdStore(EtcdOptions((f"127.0.0.1:{port}",), silence=0.5))
    yield store
    await store.close()
    await server.stop(None)


async def first(store: EtcdStore, count: int, after: int = 10) -> list[WatchBatch]:
    batches: list[WatchBatch] = []
    async with asyncio.timeout(20), aclosing(store.watch("k", after=after)) as stream:
        async for batch in stream:
            batches.append(batch)
            if len(batches) == count:
                return batches
    raise AssertionError("the watch ended by itself")


def shape(batches: list[WatchBatch]) -> list[tuple[int, list[int]]]:
    return [(batch.revision, [event.revision for event in batch.events]) for batch in batches]


async def test_a_batch_is_complete_up_to_its_last_event_not_up_to_the_servers_revision(
    script: Script, store: EtcdStore
) -> None:
    script.responses = [said(event(11), event(12), revision=99)]
    assert shape(await first(store, 1)) == [(12, [11, 12])]


async def test_fragments_are_put_together_before_anything_is_told(script: Script, store: EtcdStore) -> None:
    script.responses = [
        said(event(11), event(12, "ka"), fragment=True),
        said(event(12, "kb"), fragment=True),
        said(event(12, "kc")),
        said(event(13)),
    ]
    assert shape(await first(store, 2)) == [(12, [11, 12, 12, 12]), (13, [13])]


async def test_what_comes_again_is_dropped(script: Script, store: EtcdStore) -> None:
    script.responses = [
        said(event(10), event(11)),
        said(event(11)),
        said(event(9), event(10), event(11), event(12)),
    ]
    assert shape(await first(store, 2)) == [(11, [11]), (12, [12])]
    assert script.starts == [10]


async def test_timed_progress_is_told(script: Script, store: EtcdStore) -> None:
    script.version = "3.4.23"
    script.responses = [said(revision=50), said(event(60))]
    assert shape(await first(store, 2)) == [(50, []), (60, [60])]


async def test_progress_that_was_asked_for_is_told_where_it_is_in_order(script: Script, store: EtcdStore) -> None:
    script.progress = said(revision=70, watch_id=ASKED_FOR)
    assert shape(await first(store, 1)) == [(70, [])]


async def test_progress_that_may_overtake_events_is_only_a_sign_of_life(script: Script, store: EtcdStore) -> None:
    script.version = "3.5.7"
    script.progress = said(revision=70, watch_id=ASKED_FOR)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await anext(aiter(store.watch("k", after=10)))
    assert script.asked >= 2
    assert script.starts == [10]


async def test_without_a_sign_of_life_the_watch_begins_anew_where_it_was(script: Script, store: EtcdStore) -> None:
    script.responses = [said(event(11))]
    seen: list[WatchBatch] = []
    follower = asyncio.create_task(_follow(store, seen))
    async with asyncio.timeout(20):
        while len(script.starts) < 3:
            await asyncio.sleep(0.02)
    await store.close()
    await follower
    assert script.starts[:3] == [10, 11, 11]
    assert shape(seen) == [(11, [11])]


async def test_a_watch_cancelled_for_a_passing_reason_begins_anew_and_for_another_ends(
    script: Script, store: EtcdStore
) -> None:
    script.responses = [pb.WatchResponse(canceled=True, cancel_reason="etcdserver: no leader")]
    seen: list[WatchBatch] = []
    follower = asyncio.create_task(_follow(store, seen))
    async with asyncio.timeout(20):
        while len(script.starts) < 2:
            await asyncio.sleep(0.02)
    script.responses = [pb.WatchResponse(canceled=True, cancel_reason="rpc error: etcdserver: permission denied")]
    with pytest.raises(TrimtabError, match="permission denied") as refused:
        await asyncio.wait_for(follower, 20)
    assert refused.value.code is Code.STORE_REFUSED


async def _follow(store: EtcdStore, seen: list[WatchBatch]) -> None:
    async with aclosing(store.watch("k", after=10)) as batches:
        async for batch in batches:
            seen += [batch]
