"""One channel per endpoint, made at its first use, closed when it is idle or the endpoint gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from trimtab.calling.in_use import SWEEP, InUse
from trimtab.core.endpoints import Endpoint, Tally
from trimtab.discovery import Callee
from trimtab.fork import tell_of_forks
from trimtab.grpc.method import Method

C = TypeVar("C")

OPTIONS = {
    # Each endpoint's connection, and the backoff after a failure of it, is its channel's own.
    "grpc.use_local_subchannel_pool": 1,
    # What may be tried again is said by the mesh's policy, never by a service config from DNS. That leaves gRPC with those
    # retries that it knows to be safe: of streams that the callee never saw.
    "grpc.service_config_disable_resolution": 1,
    # A mesh knows other endpoints, so waiting long for one to accept a connection makes no sense; and it knows when one is
    # back, so a channel must not sulk for the two minutes that are gRPC's default.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 1000,
    "grpc.max_reconnect_backoff_ms": 2000,
}


class SubChannel(InUse, Generic[C]):
    """The channel to one endpoint. ``stubs`` are its methods, as gRPC calls them.

    ``intercepted``: somebody may add to the metadata of its calls.
    """

    __slots__ = ("address", "callee", "channel", "endpoint", "intercepted", "stubs")

    def __init__(self, address: Hashable, channel: C) -> None:
        super().__init__()
        self.address = address
        self.channel = channel
        # Instrumentation gives interceptors to channels that we made without. Where it cannot be told, there are some.
        self.intercepted = bool(getattr(channel, "_unary_unary_interceptors", True))
        self.stubs: dict[Method, Any] = {}
        self.callee: Callee
        self.endpoint: Endpoint

    @property
    def gone(self) -> bool:
        """Nobody serves there any more."""
        known = self.callee.state.endpoints.get(self.endpoint.id)
        return known is None or address_of(known) != self.address


def address_of(endpoint: Endpoint) -> tuple[str, int, str | None]:
    """What makes two endpoints the same to a channel."""
    return endpoint.address, endpoint.port, endpoint.metadata.get("scheme")


class SubChannels(Generic[C]):
    """The channels of one mesh channel. Thread-safe.

    ``close`` closes one, at once or soon; ``closed`` makes what is raised when all are. A process that forks first closes those
    to endpoints that no call is in flight to, when ``quiet`` is true, as gRPC should be still while it forks. A forked child
    makes channels of its own.
    """

    def __init__(
        self, make: Callable[[Endpoint], C], close: Callable[[C], None], closed: Callable[[], Exception], *, quiet: bool
    ) -> None:
        self._make = make
        self._closed = closed
        self._close = close
        self._quiet = quiet
        # Making a channel may run what the garbage collector ends, and a signal's handler may call: on this very thread.
        self._lock = threading.RLock()
        self._open: dict[Hashable, SubChannel[C]] = {}
        self._sweep_at = 0.0
        self._abandoned: list[dict[Hashable, SubChannel[C]]] = []
        self.closed = False
        tell_of_forks(self)

    def to(self, endpoint: Endpoint, tally: Tally, callee: Callee, now: float) -> SubChannel[C]:
        """The channel to ``endpoint``, for a call that ``tally`` counts as in flight until it is over.

        Raises what gRPC raises for a closed channel.
        """
        if now >= self._sweep_at:
            self.sweep(now)
        # What address_of() does, without its call.
        address = (endpoint.address, endpoint.port, endpoint.metadata.get("scheme"))
        with self._lock:
            sub = self._open.get(address)
            if sub is None:
                if self.closed:
                    raise self._closed()
                sub = self._open[address] = SubChannel(address, self._make(endpoint))
            sub.used_at = now
            if sub.tally is not tally:
                sub.share(tally)
            sub.callee, sub.endpoint = callee, endpoint
            return sub

    def stub(self, sub: SubChannel[C], method: Method) -> Any:
        """A method on the channel to one endpoint, made at its first use."""
        # gRPC does not promise that several threads may make some at once.
        with self._lock:
            made = sub.stubs.get(method)
            if made is None:
                made = sub.stubs[method] = method.on(sub.channel)
            return made

    def sweep(self, now: float) -> None:
        """Close what nobody used for a minute, and what leads to nobody; called every 10 s while there are calls."""
        with self._lock:
            self._sweep_at = now + SWEEP
            unused = [sub for sub in self._open.values() if sub.idle(now) or (sub.gone and not sub.in_use)]
            for sub in unused:
                del self._open[sub.address]
        for sub in unused:
            self._close(sub.channel)

    def drain(self) -> list[C]:
        """Make no more, and give all there are, for the caller to close."""
        with self._lock:
            self.closed = True
            open_, self._open = self._open, {}
        return [sub.channel for sub in open_.values()]

    def __len__(self) -> int:
        return len(self._open)

    # Forks

    def before_fork(self) -> bool:
        """Close what is not in use."""
        if not self._quiet:
            return False
        with self._lock:
            unused = [sub for sub in self._open.values() if not sub.in_use]
            for sub in unused:
                del self._open[sub.address]
        for sub in unused:
            self._close(sub.channel)
        return bool(unused)

    def after_fork_in_parent(self) -> None:
        """New channels are made as they are needed."""

    def after_fork_in_child(self) -> None:
        """Leave the parent's channels alone: even to destroy one would speak on its connection."""
        self._lock = threading.RLock()
        self._abandoned.append(self._open)
        self._open = {}
