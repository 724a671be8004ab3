"""Watches as server-sent events: a snapshot, then each change, from the view as it is when the event is written.

A step of the view only wakes the streams whose topic it touches, and a stream compares what it sent with what is: a slow
reader skips intermediate states and costs a bounded amount of memory. ``id:`` is the store revision. A reader that
reconnects is sent a snapshot.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from controlplane.core.model import Event, Kind
from controlplane.core.resource import ResourceKind, ResourceName
from controlplane.core.view import View
from controlplane.errors import Code, TrimtabError
from controlplane.http.models import Named
from controlplane.runtime.reconciler import Reconciler

# A part of the view: a branch and what is above the items in it, as ("endpoints", "default", "orders").
Topic = tuple[str, ...]
ENDPOINTS, CONFIGS, POLICIES = "endpoints", "configs", "policies"

_BRANCHES = {
    Kind.INSTANCE: ENDPOINTS,
    Kind.DESIRED: ENDPOINTS,
    Kind.PROTECTION: ENDPOINTS,
    Kind.CONFIG: CONFIGS,
    Kind.POLICY: POLICIES,
}
_RESOURCES = {
    ResourceKind.ENDPOINTS: ENDPOINTS,
    ResourceKind.CONFIG: CONFIGS,
    ResourceKind.POLICY: POLICIES,
}

# For an operation's OpenAPI entry.
EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'id: 812\nevent: snapshot\ndata: {"revision":812,"items":[]}\n\n'
                'id: 813\nevent: change\ndata: {"revision":813,"changed":[],"removed":["namespaces/…"]}\n\n',
            }
        }
    }
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """What a watch follows: all items as of now with their revision, and the topic whose steps concern them."""

    read: Callable[[], Awaitable[tuple[int, Sequence[Named]]]]
    topic: Topic | None = None
    every: float | None = None  # seconds; for what changes without a step of the view

    @classmethod
    def of(cls, view: View, read: Callable[[], Sequence[Named]], *topic: str) -> Source:
        """A part of the view."""

        async def now() -> tuple[int, Sequence[Named]]:
            return view.revision, read()

        return cls(now, topic)


class Watches:
    """The open watches of one server: bounded in number, ended together when ``stopping`` is set."""

    def __init__(
        self,
        reconciler: Reconciler,
        stopping: asyncio.Event,
        *,
        keepalive: float = 15.0,
        write_deadline: float = 30.0,
        limit: int = 1000,
    ) -> None:
        self._sleeping: dict[asyncio.Event, Topic | None] = {}
        self._stopping = stopping
        self._keepalive = keepalive
        self._write_deadline = write_deadline
        self._limit = limit
        reconciler.listen(self._stepped)

    @property
    def open(self) -> int:
        """How many are open now."""
        return len(self._sleeping)

    def stream(self, source: Source) -> Response:
        """The answer that follows ``source``. Raises FLOOD when too many are open."""
        if self.open >= self._limit:
            raise TrimtabError(
                Code.FLOOD, f"{self._limit} watches are open here already", hint="close one, or ask another replica"
            )
        return EventStream(self, source)

    async def follow(self, source: Source, receive: Receive, send: Send) -> None:
        """Serve one watch until its reader leaves, the server stops, or a write hangs."""
        wake = asyncio.Event()
        self._sleeping[wake] = source.topic
        tasks = [
            asyncio.create_task(self._write(source, wake, send), name="watch-write"),
            asyncio.create_task(_disconnected(receive), name="watch-reader"),
            asyncio.create_task(self._stopping.wait(), name="watch-stop"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            del self._sleeping[wake]
        for task, result in zip(tasks, results, strict=True):
            if task in done and isinstance(result, BaseException):
                raise result

    def _stepped(self, _: int, names: frozenset[ResourceName], events: list[Event]) -> None:
        """Wake those whose topic the step touches. Its events tell also what alters no endpoint, as an intent may."""
        if self._sleeping:
            touched = set(_touched(names, events))
            for wake, topic in self._sleeping.items():
                if topic in touched:
                    wake.set()

    async def _write(self, source: Source, wake: asyncio.Event, send: Send) -> None:
        revision, items = await source.read()
        held = {item.name: _settled(item) for item in items}
        await self._send(send, _event("snapshot", revision, {"items": [_plain(item) for item in items]}))
        clock = asyncio.get_running_loop().time
        spoke = clock()
        while True:
            with suppress(TimeoutError):  # nothing woke it: look all the same, and say that the server is alive
                async with asyncio.timeout(min(self._keepalive, source.every or self._keepalive)):
                    await wake.wait()
            wake.clear()
            revision, items = await source.read()
            now = {item.name: _settled(item) for item in items}
            changed = [_plain(item) for item in items if held.get(item.name) != now[item.name]]
            removed = [name for name in held if name not in now]
            held = now
            if changed or removed:
                await self._send(send, _event("change", revision, {"changed": changed, "removed": removed}))
            elif clock() - spoke >= self._keepalive:
                await self._send(send, b": still here\n\n")
            else:
                continue
            spoke = clock()

    async def _send(self, send: Send, chunk: bytes) -> None:
        async with asyncio.timeout(self._write_deadline):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


class EventStream(Response):
    """A response that follows a source."""

    media_type = "text/event-stream"

    def __init__(self, watches: Watches, source: Source) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._watches = watches
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the watch ends."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            await self._watches.follow(self._source, receive, send)
        except TimeoutError:
            _log.info("a watch of %s was cut off: its reader does not read", scope["path"])
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _touched(names: Iterable[ResourceName], events: Iterable[Event]) -> Iterator[Topic]:
    """Every topic that a step concerns, from each namespace down. A listing's events lack what is gone: its names do not."""
    for branch, path in chain(
        ((_BRANCHES.get(event.ref.kind), event.ref.path) for event in events),
        ((_RESOURCES.get(name.kind), tuple(name.name.split("/"))) for name in names),
    ):
        if branch is not None:
            for depth in range(1, len(path) + 1):
                yield branch, *path[:depth]


def _event(kind: str, revision: int, data: Mapping[str, object]) -> bytes:
    body = json.dumps({"revision": revision, **data}, separators=(",", ":"))
    return f"id: {revision}\nevent: {kind}\ndata: {body}\n\n".encode()


def _plain(item: Named) -> dict[str, object]:
    return item.model_dump(mode="json")


def _settled(item: Named) -> dict[str, object]:
    """What makes an item count as changed."""
    return item.model_dump(exclude=set(item.volatile))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
