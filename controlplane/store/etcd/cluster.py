"""The members as one: which of them is asked, when another is tried, and the token that goes with each call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from controlplane.errors import Code, TrimtabError
from controlplane.store.etcd import rpc_pb2 as pb
from controlplane.store.etcd.backoff import Backoff
from controlplane.store.etcd.endpoint import AUTHENTICATE, CONNECT_TIMEOUT, Endpoint, Message, Metadata, Method
from controlplane.store.etcd.failure import CallFailed, Cause
from controlplane.store.etcd.options import EtcdOptions

log = logging.getLogger("trimtab.store")

# A member that has lost its leader refuses at once instead of holding the call until it times out.
HAS_LEADER = ("hasleader", "true")
TOKEN_TRIES = 2
# A member that holds a call longer has lost its leader or is stuck: what can be asked again is asked of another.
TRY_TIMEOUT = 1.0

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Answer(Generic[A]):
    """``message`` from the member at ``endpoint``; ``lost``: an earlier try may have been carried out unheard."""

    message: A
    endpoint: str
    lost: bool


class Cluster:
    """The members of one etcd. Stays with the member that answers, moves on when it fails."""

    def __init__(self, options: EtcdOptions) -> None:
        self.options = options
        credentials = options.credentials()
        self._endpoints = tuple(Endpoint(address, options, credentials) for address in options.addresses)
        self._current = 0
        self._token: str | None = None
        self._token_lock = asyncio.Lock()
        self._closing = asyncio.Event()

    @property
    def current(self) -> Endpoint:
        """The member to ask now."""
        return self._endpoints[self._current]

    @property
    def closing(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closing.is_set()

    def check_open(self) -> None:
        """Raises ``STORE_UNAVAILABLE`` after :meth:`close`."""
        if self.closing:
            raise TrimtabError(Code.STORE_UNAVAILABLE, "the store is closed")

    def leave(self, endpoint: Endpoint) -> None:
        """``endpoint`` failed: ask the next one from now on, unless another caller has moved on already."""
        if self.current is endpoint:
            self._current = (self._current + 1) % len(self._endpoints)

    async def pause(self, seconds: float) -> None:
        """Wait, at most until the store is closed."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    async def call(
        self, method: Method[Q, A], request: Q, *, writes: bool = False, again: Callable[[], Q] | None = None
    ) -> Answer[A]:
        """Ask one member after another until one answers, for ``options.timeout`` seconds in all.

        A call that ``writes`` is sent again after its answer may have been lost only when ``again`` is given: what
        that makes is then sent. A try that is known not to have been carried out may always be repeated.
        Raises :class:`TrimtabError` as the store's port says.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.options.timeout
        backoff = Backoff()
        tokens = tries = 0
        lost = False
        while True:
            self.check_open()
            endpoint = self.current
            try:
                left = deadline - loop.time()
                share = self._share(left, tries)
                # What is sent but once may take all the time there is; finding a member to send it to may not.
                patience = left if writes and again is None else share
                message = await self._once(endpoint, method, request, reach=share, timeout=patience)
                return Answer(message, endpoint.address, lost)
            except CallFailed as failure:
                lost = lost or (writes and failure.cause.uncertain)
                tokens += failure.cause is Cause.TOKEN
                stuck = not failure.cause.passing or tokens > TOKEN_TRIES or (lost and again is None)
                if stuck or self.closing or deadline - loop.time() < 0.02:
                    raise failure.error(uncertain=lost) from None
                if failure.cause is not Cause.TOKEN:
                    log.debug("%s; asking another member", failure)
                    self.leave(endpoint)
                if lost and again is not None:
                    request = again()
            tries += 1
            if tries >= len(self._endpoints):
                await self.pause(min(backoff.next(), max(deadline - loop.time() - 0.05, 0)))

    async def metadata(self, endpoint: Endpoint, timeout: float) -> Metadata:
        """What goes with every call: that a leader is wanted, and the token. Raises :class:`CallFailed`."""
        if not self.options.user:
            return (HAS_LEADER,)
        try:
            async with asyncio.timeout(timeout):
                async with self._token_lock:
                    if self._token is None:
                        self._token = await self._authenticate(endpoint, timeout)
        except TimeoutError:
            raise CallFailed(Cause.UNREACHABLE, endpoint.address, "no token in time") from None
        return (HAS_LEADER, ("token", self._token)) if self._token else (HAS_LEADER,)

    def forget_token(self, metadata: Metadata) -> None:
        """The token in ``metadata`` is not taken any more: ask for a new one with the next call."""
        if dict(metadata).get("token", "") == (self._token or ""):
            self._token = None

    async def close(self) -> None:
        """Close every channel."""
        self._closing.set()
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints))

    async def _once(self, endpoint: Endpoint, method: Method[Q, A], request: Q, *, reach: float, timeout: float) -> A:
        """One try: at most ``reach`` seconds until there is a connection and a token, ``timeout`` in all."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await endpoint.connect(min(reach, CONNECT_TIMEOUT))
        metadata = await self.metadata(endpoint, reach)
        try:
            left = max(began + timeout - loop.time(), 0.01)
            return await endpoint.call(method, request, timeout=left, metadata=metadata)
        except CallFailed as failure:
            if failure.cause is Cause.TOKEN:
                self.forget_token(metadata)
            raise

    def _share(self, left: float, tries: int) -> float:
        """Seconds for one try of what may be tried again: not all that is left while another member can be asked."""
        if len(self._endpoints) == 1:
            return left
        # Longer each time, so that a cluster that is merely slow is not asked for everything many times over.
        return min(left / 2, TRY_TIMEOUT * (1 << tries))

    async def _authenticate(self, endpoint: Endpoint, timeout: float) -> str:
        request = pb.AuthenticateRequest(name=self.options.user, password=self.options.password)
        try:
            answer = await endpoint.call(AUTHENTICATE, request, timeout=timeout)
        except CallFailed as failure:
            # Users may be set up in clients before they are switched on in etcd; then there is no token to get.
            if "authentication is not enabled" in failure.detail:
                return ""
            # Asking for a token changes nothing: a lost answer is like none.
            if failure.cause.uncertain:
                raise CallFailed(Cause.UNREACHABLE, failure.endpoint, failure.detail) from None
            raise
        return answer.token
