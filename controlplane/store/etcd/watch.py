"""A watch that goes on: whatever happens to members and connections, every change is seen once and in order.

It remembers up to which revision it has told everything, and resumes there on another member. The start asked of etcd
is that very revision, not the next: a start in the future is one to which newer servers answer no request for progress,
and one at the revision of a compaction is one for which older servers have lost deletions. What comes again is dropped.

When nothing is heard for a while the member is asked for a sign of life; without one the watch moves on. A member's
answer to that is taken as progress only from versions that keep it in order with the events; see ``versions.py``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import grpc

from controlplane.store.etcd import rpc_pb2 as pb
from controlplane.store.etcd.backoff import Backoff
from controlplane.store.etcd.cluster import TOKEN_TRIES, Cluster
from controlplane.store.etcd.endpoint import CONNECT_TIMEOUT, RANGE, STATUS, WATCH, Endpoint, Metadata, failures_of
from controlplane.store.etcd.failure import CallFailed, Cause, classify_reason
from controlplane.store.etcd.transaction import key_value, range_end, range_start
from controlplane.store.etcd.versions import progress_in_order
from controlplane.store.port import WatchBatch, WatchEvent

log = logging.getLogger("trimtab.store")

# The id under which a member answers a request for progress; a watch's own id carries what is timed by the member.
ASKED_FOR = -1

Stream = grpc.aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse]


async def watch(cluster: Cluster, prefix: str, after: int) -> AsyncGenerator[WatchBatch, None]:
    """Every change below ``prefix`` later than ``after``, until the store is closed.

    Raises :class:`TrimtabError`: ``STORE_COMPACTED`` when ``after`` is no longer kept or lies in the store's future
    (it was restored or emptied), ``STORE_REFUSED`` when the user may not watch.
    """
    backoff = Backoff()
    tokens = failures = 0
    while not cluster.closing:
        endpoint = cluster.current
        try:
            async with aclosing(_watch_at(cluster, endpoint, prefix, after)) as batches:
                async for batch in batches:
                    if failures:
                        log.info("watch of %s: resumed at revision %d with etcd %s", prefix, after, endpoint.address)
                    tokens = failures = 0
                    backoff.reset()
                    if batch.revision > after:
                        after = batch.revision
                        yield batch
        except CallFailed as failure:
            tokens += failure.cause is Cause.TOKEN
            if not failure.cause.passing or tokens > TOKEN_TRIES:
                raise failure.error() from None
            if not cluster.closing:
                # Once is news; that it goes on is not.
                level = logging.DEBUG if failures else logging.WARNING
                log.log(level, "watch of %s at revision %d: %s; resuming", prefix, after, failure)
            failures += 1
            if failure.cause is not Cause.TOKEN:
                cluster.leave(endpoint)
        await cluster.pause(backoff.next())


async def _watch_at(cluster: Cluster, endpoint: Endpoint, prefix: str, after: int) -> AsyncGenerator[WatchBatch, None]:
    """Watch at one member until something fails; the first batch, an empty one at ``after``, says that it began.

    Raises :class:`CallFailed`.
    """
    await endpoint.connect(CONNECT_TIMEOUT)
    metadata = await cluster.metadata(endpoint, CONNECT_TIMEOUT)
    try:
        trusted = await _examine(endpoint, metadata, prefix, after)
        async with _Ear(endpoint, metadata, cluster.options.silence) as ear:
            await ear.create(prefix, after)
            events: list[WatchEvent] = []
            while True:
                response = await ear.hear()
                _check(endpoint, response)
                events += [event for event in map(_event, response.events) if event.revision > after]
                if response.fragment:
                    continue
                if response.created:
                    yield WatchBatch(after, ())
                elif events:
                    after = events[-1].revision
                    yield WatchBatch(after, tuple(events))
                    events = []
                elif _is_progress(response, trusted) and response.header.revision > after:
                    after = response.header.revision
                    yield WatchBatch(after, ())
    except CallFailed as failure:
        if failure.cause is Cause.TOKEN:
            cluster.forget_token(metadata)
        raise


async def _examine(endpoint: Endpoint, metadata: Metadata, prefix: str, after: int) -> bool:
    """Whether the member's answers to requests for progress can be trusted.

    A store that is behind ``after`` has lost history; a watch from there would silently wait for it to come again.
    """
    status = await endpoint.call(STATUS, pb.StatusRequest(), timeout=CONNECT_TIMEOUT, metadata=metadata)
    # Only a read that the whole cluster agrees on tells its revision; the member's own may lag behind.
    request = pb.RangeRequest(key=range_start(prefix), keys_only=True)
    answer = await endpoint.call(RANGE, request, timeout=CONNECT_TIMEOUT, metadata=metadata)
    if answer.header.revision < after:
        raise CallFailed(
            Cause.COMPACTED,
            endpoint.address,
            f"the store is at revision {answer.header.revision}, before {after}: it was restored or emptied",
        )
    return progress_in_order(status.version)


def _check(endpoint: Endpoint, response: pb.WatchResponse) -> None:
    if response.compact_revision:
        detail = f"history begins at revision {response.compact_revision}: required revision has been compacted"
        raise CallFailed(Cause.COMPACTED, endpoint.address, detail)
    if response.canceled:
        raise classify_reason(endpoint.address, response.cancel_reason)


def _is_progress(response: pb.WatchResponse, trusted: bool) -> bool:
    return not response.events and (trusted or response.watch_id != ASKED_FOR)


def _event(event: pb.Event) -> WatchEvent:
    item = key_value(event.kv)
    gone = event.type == pb.Event.DELETE
    return WatchEvent(item.key, None if gone else item, item.mod_revision)


class _Ear:
    """One watch stream and the task that asks for a sign of life when the stream is silent."""

    def __init__(self, endpoint: Endpoint, metadata: Metadata, silence: float) -> None:
        self._endpoint = endpoint
        self._silence = silence
        self._call: Stream = endpoint.stream(WATCH, metadata=metadata)
        self._stalled = False
        # When the current wait for the member began; None while the watch's reader is busy, for then silence is ours.
        self._waiting_since: float | None = None
        self._asking = asyncio.create_task(self._ask(), name=f"etcd watch silence {endpoint.address}")

    async def __aenter__(self) -> _Ear:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()
        self._asking.cancel()
        await asyncio.wait({self._asking})

    async def create(self, prefix: str, start: int) -> None:
        request = pb.WatchCreateRequest(
            key=range_start(prefix),
            range_end=range_end(prefix),
            # Zero would mean "from now on".
            start_revision=max(start, 1),
            progress_notify=True,
            fragment=True,
        )
        await self._write(pb.WatchRequest(create_request=request))

    async def hear(self) -> pb.WatchResponse:
        """The next response. Raises :class:`CallFailed`."""
        self._waiting_since = asyncio.get_running_loop().time()
        try:
            with failures_of(self._endpoint.address):
                response = await self._call.read()
        except CallFailed as failure:
            if self._stalled:
                detail = f"the watch was silent for {self._silence:.1f} s"
                raise CallFailed(Cause.TIMEOUT, self._endpoint.address, detail) from failure
            raise
        finally:
            self._waiting_since = None
        if not isinstance(response, pb.WatchResponse):
            raise CallFailed(Cause.BROKEN, self._endpoint.address, "the watch stream ended")
        return response

    async def _write(self, request: pb.WatchRequest) -> None:
        try:
            async with asyncio.timeout(self._silence):
                with failures_of(self._endpoint.address):
                    await self._call.write(request)
        except TimeoutError:
            raise CallFailed(Cause.TIMEOUT, self._endpoint.address, "the watch takes no more requests") from None

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        asked: float | None = None
        while not self._call.done():
            await asyncio.sleep(self._silence / 5)
            since = self._waiting_since
            if since is None or loop.time() - since < self._silence / 2:
                asked = None
            elif asked != since:
                asked = since
                # What this write raises, the reader is told as well.
                with suppress(CallFailed):
                    await self._write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
            elif loop.time() - since > self._silence:
                self._stalled = True
                self._call.cancel()
