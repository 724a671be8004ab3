"""``mesh://`` for aiohttp: a session that also knows the mesh.

>>> async with mesh.aiohttp_session() as session, session.get("mesh://orders/v1/42") as answer:
...     answer.trimtab.endpoint.address
'10.0.0.7'

aiohttp joins URLs and follows redirects for ``http`` alone. Inside of the session a mesh URL is therefore an ``http`` one with a
mark; a client middleware sends what bears it through the call path, and responses show the URL as it was written.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import aiohttp
from aiohttp import ClientRequest, ClientResponse, ClientSession, payload
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from trimtab.calling.drive import Awaiting
from trimtab.core.calling.call import Call
from trimtab.core.retrying.conditions import Outcome
from trimtab.errors import DeadlineExceeded, MeshClosed, TrimtabError
from trimtab.http.body import Reading
from trimtab.http.exchange import Answer, Exchange, through
from trimtab.http.httpx import CONNECT_TIMEOUT, KEEPALIVE_EXPIRY, READ_TIMEOUT, Calls
from trimtab.http.meaning import CALLERS, REFUSED, RESET, TIMEOUT, adopt, judge, onward, too_late
from trimtab.http.target import SCHEME, Target, endpoint_scheme, mesh_location, parse_target

Handler = Callable[[ClientRequest], Any]

# The fragment of URLs that are meant for the mesh. Fragments are never sent.
_MARK = "trimtab-mesh"
_ENCODING = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class MeshResponse(ClientResponse):
    """A response of aiohttp. ``trimtab`` is the trace of its call, None for URLs outside of the mesh."""

    trimtab: Call | None = None
    keep: Callable[[bytes], None] | None = None
    _moved: CIMultiDictProxy[str] | None = None

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """As they came, but that redirects within the mesh stay there."""
        return self._headers if self._moved is None else self._moved

    async def read(self) -> bytes:
        """The whole body."""
        body = await super().read()
        if self.keep is not None:
            keep, self.keep = self.keep, None
            keep(body)
        return body

    def moved(self, location: str) -> None:
        """Have aiohttp follow another Location than the one that came."""
        headers = CIMultiDict(self._headers)
        headers["Location"] = location
        self._moved = CIMultiDictProxy(headers)


with warnings.catch_warnings():
    # aiohttp discourages subclasses; it has no other way to tell it how URLs are understood.
    warnings.simplefilter("ignore", DeprecationWarning)

    class MeshSession(ClientSession):
        """A session of aiohttp that understands ``mesh://``, also as its ``base_url``."""

        def _build_url(self, str_or_url: str | URL) -> URL:
            url = URL(str_or_url)
            base = self._base_url
            if base is not None and base.scheme == SCHEME and not url.absolute:
                return base.with_scheme("http").join(url).with_fragment(_MARK)
            if url.scheme == SCHEME:
                return url.with_scheme("http").with_fragment(_MARK)
            return super()._build_url(url)


class MeshMiddleware:
    """Sends requests for the mesh through the call path; others pass."""

    def __init__(self, mesh: Calls, scheme: str | None = None) -> None:
        if scheme not in (None, "http", "https"):
            raise ValueError(f"scheme must be 'http' or 'https', not {scheme!r}")
        self.mesh = mesh
        self.scheme = scheme

    async def __call__(self, request: ClientRequest, handler: Handler) -> ClientResponse:
        """One call. Raises what aiohttp raises; errors of the mesh are errors of aiohttp, too."""
        if request.original_url.raw_fragment != _MARK:
            return await handler(request)  # type: ignore[no-any-return]
        url = request.original_url = request.url.with_scheme(SCHEME)
        try:
            target = parse_target(url.raw_authority)
        except ValueError as error:
            raise aiohttp.InvalidUrlClientError(url, str(error)) from None
        try:
            return await through(AiohttpExchange(self, request, handler), target, self._find)  # type: ignore[no-any-return]
        except TrimtabError as error:
            if isinstance(error, (aiohttp.ClientError, MeshClosed)):
                raise
            base = aiohttp.ServerTimeoutError if isinstance(error, DeadlineExceeded) else aiohttp.ClientConnectionError
            raise adopt(error, base) from error.__cause__

    async def _find(self, target: Target) -> Any:
        return await self.mesh.callee(*target)


class AiohttpExchange(Awaiting, Exchange):
    """A request of aiohttp."""

    def __init__(self, middleware: MeshMiddleware, request: ClientRequest, handler: Handler) -> None:
        self.method = request.method
        self.url = str(request.original_url)
        self._middleware = middleware
        self._request = request
        self._handler = handler

    def facts(self) -> tuple[str, Any]:
        """Path without query, and headers."""
        return self._request.original_url.path, self._request.headers

    @property
    def repeatable(self) -> bool:
        """Bytes can be sent again; a file or a generator is read once."""
        body = self._request.body
        return not body or isinstance(body, payload.BytesPayload)

    async def send(self, call: Call) -> ClientResponse:
        """Send it to the call's endpoint."""
        request, endpoint = self._request, call.endpoint
        assert endpoint is not None
        now, until = call.sent_at, call.until
        timeout = call.timeout(now)
        if timeout is not None and timeout <= 0:
            raise DeadlineExceeded(too_late(call, now))
        if call.abort is not None:
            return self._injected(call.abort)
        mesh_url = request.original_url
        # Its Host header names the service, as the mesh URL does.
        request.url = URL.build(
            scheme=endpoint_scheme(endpoint.metadata, self.scheme),
            host=endpoint.address,
            port=endpoint.port,
            path=mesh_url.raw_path,
            query_string=mesh_url.raw_query_string,
            encoded=True,
        )
        for name, value in onward(call, timeout):
            request.headers[name] = value
        clock = call.pipeline.clock
        try:
            if until is None:
                return await self._handler(request)  # type: ignore[no-any-return]
            with clock.deadline(until):
                return await self._handler(request)  # type: ignore[no-any-return]
        except TimeoutError as error:
            if isinstance(error, aiohttp.ClientError):
                raise
            if until is not None and clock.now() >= until:
                raise aiohttp.ServerTimeoutError(f"no answer within {timeout:.3g} s") from error
            # What the request itself had for all of it is over: aiohttp would send no further attempt.
            call.once = True
            raise

    def twin(self) -> Self:
        """With a request of its own: aiohttp keeps in it where it goes, and how far it has come."""
        other = copy.copy(self)
        other._request = copy.copy(self._request)
        other._request.headers = self._request.headers.copy()
        return other

    def judge(self, answer: ClientResponse) -> Outcome:
        """By its status."""
        return judge(answer.status, answer.headers)

    def status(self, answer: ClientResponse) -> str:
        """Its status."""
        return str(answer.status)

    @property
    def scheme(self) -> str | None:
        """What to speak, when the client insists."""
        return self._middleware.scheme

    def blame(self, error: BaseException) -> Outcome:
        """By the classes of aiohttp."""
        if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
            return REFUSED
        if isinstance(error, (TimeoutError, DeadlineExceeded)):
            return TIMEOUT
        return RESET if self.failed(error) and not _made_here(error) else CALLERS

    def failed(self, error: BaseException) -> bool:
        """The connection or what came over it, not the caller's use of the library."""
        return isinstance(
            error, (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError, OSError)
        )

    async def discard(self, answer: ClientResponse, call: Call) -> None:
        """Give its connection back."""
        answer.release()
        await answer.wait_for_close()

    def answered(self, answer: ClientResponse, call: Call) -> None:
        """Have the response end the call, and carry its trace."""
        answer.trimtab = call  # type: ignore[attr-defined]
        reading = Reading(call)
        connection = answer.connection
        if connection is None:
            # It came as a whole: aiohttp has its connection back already.
            reading.end()
        else:
            connection.add_callback(lambda: _ended(answer, reading))
        if not isinstance(answer, MeshResponse):
            return
        fallbacks = call.pipeline.fallbacks
        if fallbacks is not None and self.keeps(call, answer.status, _joined(answer.headers)):
            held = fallbacks
            # The body is kept as it is read: decoded.
            headers = [(n, v) for n, v in answer.raw_headers if n.decode("latin-1").lower() not in _ENCODING]

            def keep(body: bytes) -> None:
                if len(body) <= held.largest:
                    held.keep(self.identity, Answer(answer.status, headers, body), len(body), call.pipeline.now())

            if isinstance(answer, LocalResponse):
                keep(answer.body)  # nobody has to read it first
            else:
                answer.keep = keep
        location = answer.headers.get("Location")
        if location is not None and (stays := mesh_location(location, self.url)).startswith(f"{SCHEME}:"):
            answer.moved(str(URL(stays).with_scheme("http").with_fragment(_MARK)))

    def restored(self, value: Answer | Any, status: int, call: Call) -> ClientResponse:
        """A response of aiohttp."""
        if isinstance(value, Answer):
            response = self._built(value.status, [*value.headers, (b"age", b"%d" % call.age)], value.body)
        else:
            response = self._built(status, [(b"content-type", b"application/json")], json.dumps(value).encode())
        response.trimtab = call
        return response

    def _injected(self, outcome: Outcome) -> ClientResponse:
        """What a fault that the policy asks for looks like."""
        told = "injected by the service's policy"
        if outcome.condition.isdigit():
            return self._built(int(outcome.condition), [(b"content-type", b"text/plain")], told.encode())
        if not outcome.sent:
            raise aiohttp.ConnectionTimeoutError(told)
        raise (
            aiohttp.ServerTimeoutError(told)
            if outcome.condition == "DEADLINE_EXCEEDED"
            else aiohttp.ServerDisconnectedError(told)
        )

    def _built(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> MeshResponse:
        return LocalResponse(self._request, status, headers, body)


class _NothingSent:
    """What aiohttp asks of the writer of a request that was never written."""

    output_size = 0


_NEWER: dict[str, Any] = (
    {"stream_writer": _NothingSent()} if "stream_writer" in inspect.signature(ClientResponse).parameters else {}
)


class LocalResponse(MeshResponse):
    """A response that did not come over a connection."""

    def __init__(
        self, request: ClientRequest, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> None:
        super().__init__(
            request.method,
            request.original_url,
            writer=None,  # type: ignore[arg-type,unused-ignore]
            continue100=None,
            timer=None,  # type: ignore[arg-type]
            request_info=request.request_info,
            traces=[],
            loop=asyncio.get_running_loop(),
            session=request.session,
            **_NEWER,
        )
        self.status, self.reason, self.version = status, "", aiohttp.HttpVersion11
        self._raw_headers = tuple(headers)
        named = CIMultiDict((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        self._headers = CIMultiDictProxy(named)
        self._body = self.body = body
        self.content = aiohttp.StreamReader(_Quiet(), 2**16, loop=self._loop)  # type: ignore[arg-type]
        self.content.feed_data(body)
        self.content.feed_eof()


class _Quiet:
    """What a stream asks of the connection that it is read from: this one is read already."""

    _reading_paused = False

    def resume_reading(self, *_: Any, **__: Any) -> None:
        """Nothing is to be read."""

    def pause_reading(self) -> None:
        """Nothing is to be read."""


def session(
    mesh: Calls,
    *,
    scheme: str | None = None,
    middlewares: Sequence[Any] = (),
    connector: aiohttp.BaseConnector | None = None,
    timeout: aiohttp.ClientTimeout | None = None,
    response_class: type[ClientResponse] = MeshResponse,
    **options: Any,
) -> MeshSession:
    """A session that also knows ``mesh://``; ``options`` are the session's own. To be made where a loop runs.

    ``middlewares`` run outside of the call path, once for each call; those given to a single request replace all, and with them
    the mesh. ``scheme`` is what to speak to endpoints, by default what the instance's metadata says ("scheme": "https"), else
    http. Without ``timeout`` a connection may take 1 s and each read 5 s; the policy bounds the whole. aiohttp's own habit of
    sending idempotent requests once more is off: the policy decides what is tried again.
    """
    made = MeshSession(
        connector=connector or aiohttp.TCPConnector(limit=0, limit_per_host=100, keepalive_timeout=KEEPALIVE_EXPIRY),
        timeout=timeout or aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT),
        middlewares=(*middlewares, MeshMiddleware(mesh, scheme)),
        response_class=response_class,
        **options,
    )
    made._retry_connection = False
    return made


def _made_here(error: BaseException) -> bool:
    """Whether it was the making of a body that failed, which aiohttp tells as a failed connection."""
    cause = error.__cause__
    told = type(error) is aiohttp.ClientConnectionError and isinstance(cause, Exception)
    return told and not isinstance(cause, (OSError, aiohttp.ClientError))


def _joined(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Headers by their names in lower case, those that came several times as one."""
    return {name.lower(): ", ".join(headers.getall(name)) for name in headers}


def _ended(answer: ClientResponse, reading: Reading) -> None:
    """The connection is given back: the body came to its end, or broke, or nobody reads on."""
    error = answer.content.exception()
    # That nobody reads on aiohttp tells by this class itself, all that went wrong by its subclasses and others.
    if isinstance(error, Exception) and type(error) is not aiohttp.ClientConnectionError:
        reading.broke(error)
    else:
        reading.end()
