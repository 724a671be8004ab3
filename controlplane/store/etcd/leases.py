"""Keeping leases alive: many renewals pipelined on one stream, continued on another member when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from controlplane.store.etcd import rpc_pb2 as pb
from controlplane.store.etcd.backoff import Backoff
from controlplane.store.etcd.cluster import TOKEN_TRIES, Cluster
from controlplane.store.etcd.endpoint import CONNECT_TIMEOUT, KEEPALIVE, Endpoint, failures_of
from controlplane.store.etcd.failure import CallFailed, Cause

# Renewals under way at once: enough to hide the way there and back, few enough to fit any flow-control window.
WINDOW = 256


async def renew(cluster: Cluster, leases: Sequence[int]) -> dict[int, float]:
    """Renew ``leases``; seconds left for each, 0 for one that no longer exists.

    Renewing twice does no harm, so what one member leaves unanswered is asked of the next. Gives up when a whole
    ``options.timeout`` passes without an answer, with the :class:`TrimtabError` of the last failure.
    """
    loop = asyncio.get_running_loop()
    backoff = Backoff()
    left: dict[int, float] = {}
    pending = tuple(dict.fromkeys(leases))
    patience = loop.time() + cluster.options.timeout
    tokens = 0
    while pending:
        cluster.check_open()
        endpoint = cluster.current
        try:
            await _renew_at(cluster, endpoint, pending, left)
        except CallFailed as failure:
            remaining = tuple(lease for lease in pending if lease not in left)
            if len(remaining) < len(pending):
                backoff.reset()
                patience = loop.time() + cluster.options.timeout
            tokens += failure.cause is Cause.TOKEN
            stuck = not failure.cause.passing or tokens > TOKEN_TRIES or cluster.closing
            if stuck or loop.time() >= patience:
                raise failure.error() from None
            if failure.cause is not Cause.TOKEN:
                cluster.leave(endpoint)
            await cluster.pause(backoff.next())
        pending = tuple(lease for lease in pending if lease not in left)
    return left


async def _renew_at(cluster: Cluster, endpoint: Endpoint, leases: Sequence[int], left: dict[int, float]) -> None:
    """Renew at one member, adding to ``left`` with every answer. Raises :class:`CallFailed`."""
    await endpoint.connect(CONNECT_TIMEOUT)
    metadata = await cluster.metadata(endpoint, CONNECT_TIMEOUT)
    call = endpoint.stream(KEEPALIVE, metadata=metadata)
    loop = asyncio.get_running_loop()
    # Less than the whole patience, so that there is time to ask another member.
    silence = cluster.options.timeout / 2
    try:
        async with asyncio.timeout(silence) as limit:
            with failures_of(endpoint.address):
                unanswered = 0
                for window in (*_windows(leases), ()):
                    for lease in window:
                        await call.write(pb.LeaseKeepAliveRequest(ID=lease))
                    # One window stays under way while the next is written.
                    for _ in range(unanswered):
                        answer = await call.read()
                        if not isinstance(answer, pb.LeaseKeepAliveResponse):
                            raise CallFailed(Cause.BROKEN, endpoint.address, "the stream of renewals ended")
                        left[answer.ID] = float(max(answer.TTL, 0))
                        limit.reschedule(loop.time() + silence)
                    unanswered = len(window)
    except TimeoutError:
        raise CallFailed(Cause.TIMEOUT, endpoint.address, f"no renewal answered within {silence:.1f} s") from None
    except CallFailed as failure:
        if failure.cause is Cause.TOKEN:
            cluster.forget_token(metadata)
        raise
    finally:
        call.cancel()


def _windows(leases: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(leases), WINDOW):
        yield leases[start : start + WINDOW]
