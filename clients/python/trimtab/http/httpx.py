"""``mesh://`` for httpx and for httpx2, blocking and asynchronous.

The two libraries have the same shape and unrelated classes. The transport is therefore written over that shape, and what
must be a subclass of the library's own (the response stream, the errors) is built once for each library that is in use.

>>> http = mesh.http_client(timeout=2.0)
>>> answer = http.get("mesh://orders/v1/42")
>>> answer.extensions["trimtab"].endpoint.address
'10.0.0.7'
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, overload

from trimtab.calling.context import TIMEOUT_HEADER, UNMARKED, marks
from trimtab.calling.drive import Awaiting, Blocking, block
from trimtab.core.calling.call import Call
from trimtab.core.calling.fallbacks import Fallbacks
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.retrying.conditions import OK, Outcome
from trimtab.errors import DeadlineExceeded, MeshClosed, NoEndpoints, TrimtabError
from trimtab.http.body import AsyncBody, Body
from trimtab.http.exchange import Answer, Exchange, through
from trimtab.http.keeping import identity
from trimtab.http.meaning import CALLERS, REFUSED, RESET, TIMEOUT, adopt, judge, milliseconds, onward, too_late
from trimtab.http.pools import Pools
from trimtab.http.target import Target, mesh_location, parse_target

if TYPE_CHECKING:
    import httpx
    import httpx2

# A mesh knows other endpoints, so waiting long for one to accept a connection makes no sense; seconds.
CONNECT_TIMEOUT = 1.0
READ_TIMEOUT = 5.0
# Shorter than the keep-alive of common servers (gunicorn 2 s, uvicorn 5 s): a connection is given up by its client
# before its server closes it under a request.
KEEPALIVE_EXPIRY = 1.5

_made = tuple.__new__
_TIMEOUT = TIMEOUT_HEADER.encode()
_PHASES = ("connect", "read", "write", "pool")
_NO_TIMEOUTS: dict[str, float | None] = {}
_LIMIT = 1024  # services and methods are few; whoever makes them up must not fill the memory
POOL_OPTIONS = frozenset({"verify", "cert", "http1", "http2", "limits"})


class Calls(Protocol):
    """What the transport needs of a mesh; the asynchronous twin returns an awaitable."""

    def callee(self, service: str, namespace: str | None = ...) -> Any:
        """Return the service as calls see it. Raises MeshClosed."""
        ...


class AsyncCalls(Calls, Protocol):
    """What an asynchronous transport needs beside that."""

    def known(self, service: str, namespace: str | None = ...) -> Any:
        """Return the service as calls see it, None when ``callee`` would have to wait."""
        ...


@dataclass(frozen=True, slots=True)
class Library:
    """httpx or httpx2: the module, and the streams that must descend from its own."""

    module: ModuleType
    stream: type[Any]
    async_stream: type[Any]


@cache
def library(name: str) -> Library:
    """The library of this name. Raises ImportError with the extra to install when it is missing."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"mesh:// needs {name}, which is not installed: pip install 'trimtab[httpx]'") from error
    return Library(
        module,
        type("MeshStream", (Body, module.SyncByteStream), {}),
        type("AsyncMeshStream", (AsyncBody, module.AsyncByteStream), {}),
    )


def installed() -> Literal["httpx", "httpx2"]:
    """httpx when it is installed, else httpx2, its maintained fork."""
    return "httpx" if importlib.util.find_spec("httpx") or not importlib.util.find_spec("httpx2") else "httpx2"


class _WireURL(NamedTuple):
    """Where a request goes on the wire."""

    raw_scheme: bytes
    raw_host: bytes
    port: int
    raw_path: bytes


class _WireHeaders(NamedTuple):
    """What the libraries' own transports read of headers."""

    raw: list[tuple[bytes, bytes]]


class _WireRequest(NamedTuple):
    """What the libraries' own transports read of a request. Their Request would parse the URL twice more, 90 µs."""

    method: str
    url: _WireURL
    headers: _WireHeaders
    stream: Any
    extensions: Any


class Kept(NamedTuple):
    """What requests of one method to one service go through, from request to request."""

    target: Target
    pipeline: Pipeline | None


_NONE_KEPT = Kept(Target(""), None)


class _Shape:
    """What both transports share: everything but how their library sends, closes and waits."""

    def __init__(
        self, mesh: Calls, library: Library, make_pool: Callable[[str], Any], stream: type[Any], scheme: str | None
    ) -> None:
        if scheme not in (None, "http", "https"):
            raise ValueError(f"scheme must be 'http' or 'https', not {scheme!r}")
        self.mesh = mesh
        self.module = library.module
        self.whole = library.module.ByteStream
        self.pools: Pools[Any] = Pools(make_pool, scheme)
        self.stream = stream
        self.scheme = scheme
        self.kept: dict[tuple[bytes, int | None, str], Kept] = {}

    def pipeline(self, request: Any, target: Target, callee: Any) -> Pipeline | None:
        """What a request goes through, None where nobody knows yet. Kept where that is found by service and method alone."""
        if callee is None:
            return None
        pipeline: Pipeline | None = callee.pipelines.get(request.method)
        if pipeline is None:
            return callee.pipeline(request.method, request.url.path, request.headers)  # type: ignore[no-any-return]
        if len(self.kept) >= _LIMIT:
            self.kept.clear()
        url = request.url
        self.kept[url.raw_host, url.port, request.method] = Kept(target, pipeline)
        return pipeline

    def target(self, request: Any) -> Target:
        """The service that a request is for. Raises UnsupportedProtocol."""
        try:
            return parse_target(request.url.netloc.decode("ascii"))
        except ValueError as error:
            raise self.module.UnsupportedProtocol(str(error), request=request) from None

    def told(self, error: TrimtabError, request: Any) -> Exception:
        """An error of the mesh as one that is also the library's."""
        module = self.module
        if isinstance(error, (module.TransportError, MeshClosed)):
            return error
        base = module.TransportError
        if isinstance(error, NoEndpoints):
            base = module.ConnectError
        elif isinstance(error, DeadlineExceeded):
            base = module.TimeoutException
        return adopt(error, base, _request=request)

    async def find(self, target: Target) -> Any:
        """A service as calls see it."""
        raise NotImplementedError


class HttpxExchange(Exchange):
    """A request of httpx or httpx2. Subclasses send it, and wait, in their way."""

    def __init__(self, shape: _Shape, request: Any) -> None:
        self.shape = shape
        self.request = request
        self.method = request.method

    @property
    def identity(self) -> Hashable:
        """What makes two requests ask for the same."""
        return self.shape.module, *identity(self.method, str(self.request.url), self.request.headers)

    def facts(self) -> tuple[str, Any]:
        """Path without query, and headers."""
        return self.request.url.path, self.request.headers

    @property
    def repeatable(self) -> bool:
        """Bytes can be sent again, a generator cannot."""
        return isinstance(self.request.stream, self.shape.whole)

    def judge(self, answer: Any) -> Outcome:
        """By its status."""
        status = answer.status_code
        return OK if status < 400 else judge(status, answer.headers)

    def status(self, answer: Any) -> str:
        """Its status."""
        return str(answer.status_code)

    @property
    def scheme(self) -> str | None:
        """What to speak, when the client insists."""
        return self.shape.scheme

    def blame(self, error: BaseException) -> Outcome:
        """By the library's classes."""
        module = self.shape.module
        if isinstance(error, (module.ConnectError, module.ConnectTimeout)):
            return REFUSED
        if isinstance(error, (module.PoolTimeout, module.LocalProtocolError, module.UnsupportedProtocol)):
            return CALLERS
        if isinstance(error, (module.TimeoutException, DeadlineExceeded)):
            return TIMEOUT
        return RESET if isinstance(error, module.TransportError) else CALLERS

    def failed(self, error: BaseException) -> bool:
        """A transport error."""
        return isinstance(error, self.shape.module.TransportError)

    def answered(self, answer: Any, call: Call) -> None:
        """Have the response end the call, and carry its trace."""
        body = answer.stream = self.shape.stream(answer.stream, call)
        fallbacks = call.pipeline.fallbacks
        if fallbacks is not None and self.keeps(call, answer.status_code, answer.headers):
            body.keep(partial(self._keep, fallbacks, answer), fallbacks.largest)
        answer.extensions["trimtab"] = call
        # Few answers are redirects, and the library looks at five codes to tell.
        if answer.status_code >= 300 and answer.has_redirect_location:
            answer.headers["location"] = mesh_location(answer.headers["location"], str(self.request.url))

    def _keep(self, fallbacks: Fallbacks, answer: Any, body: bytes) -> None:
        kept = Answer(answer.status_code, list(answer.headers.raw), body)
        fallbacks.keep(self.identity, kept, len(body), answer.extensions["trimtab"].pipeline.now())

    def restored(self, value: Answer | Any, status: int, call: Call) -> Any:
        """A response of the library."""
        module = self.shape.module
        if isinstance(value, Answer):
            response = module.Response(value.status, headers=value.headers, stream=module.ByteStream(value.body))
            response.headers["age"] = str(int(call.age))
        else:
            response = module.Response(status, json=value)
        response.extensions["trimtab"] = call
        return response

    def outgoing(self, call: Call) -> tuple[Any, _WireRequest]:
        """The pool of the call's endpoint, and the request as it is sent there. Raises DeadlineExceeded.

        The headers stay, and with them the Host of the mesh URL.
        """
        now, until = call.sent_at, call.until
        timeout = None if until is None else until - now
        if timeout is not None and timeout <= 0:
            raise DeadlineExceeded(too_late(call, now))
        slot = self.shape.pools.of(call.endpoint, call.tally, now)  # type: ignore[arg-type]  # it was let in
        request = self.request
        raw = request.headers.raw
        if call.dispatch is None and marks.get() is UNMARKED and not call.pipeline.priority:
            # There is nothing to hand on but the time, as mostly.
            if timeout is not None:
                raw.append((_TIMEOUT, milliseconds(timeout).encode()))
        else:
            told = onward(call, timeout)
            if call.dispatch is not None:
                own = {name.lower().encode("ascii") for name, _ in told}
                raw = [(name, value) for name, value in raw if name.lower() not in own]
            raw += ((name.encode("ascii"), text.encode("ascii")) for name, text in told)
        extensions = request.extensions
        if timeout is not None:
            given = held = extensions.get("timeout", _NO_TIMEOUTS)
            for phase in _PHASES:
                seconds = given.get(phase)
                if seconds is None or seconds > timeout:
                    # The client's own times are shared by its requests.
                    given = {**given, phase: timeout}
            if given is not held:
                extensions = {**extensions, "timeout": given}
        # What the constructors of named tuples do, without their calls.
        url = _made(_WireURL, (slot.scheme, slot.host, slot.port, request.url.raw_path))
        headers = _made(_WireHeaders, (raw,))
        return slot.pool, _made(_WireRequest, (self.method, url, headers, request.stream, extensions))

    def injected(self, outcome: Outcome) -> Any:
        """What a fault that the policy asks for looks like."""
        module, told = self.shape.module, "injected by the service's policy"
        if outcome.condition.isdigit():
            # A stream, which has to be closed: a body that is there already would never end the call.
            headers = {"content-type": "text/plain", "content-length": str(len(told))}
            return module.Response(int(outcome.condition), headers=headers, stream=module.ByteStream(told.encode()))
        if not outcome.sent:
            raise module.ConnectError(told, request=self.request)
        kind = module.ReadTimeout if outcome.condition == "DEADLINE_EXCEEDED" else module.ReadError
        raise kind(told, request=self.request)


class _BlockingExchange(Blocking, HttpxExchange):
    async def send(self, call: Call) -> Any:
        """The library's own timeouts, shortened, have to do."""
        if call.abort is not None:
            return self.injected(call.abort)
        pool, request = self.outgoing(call)
        return pool.handle_request(request)

    async def discard(self, answer: Any, call: Call) -> None:
        """Give its connection back."""
        answer.close()


class _AwaitedExchange(Awaiting, HttpxExchange):
    async def send(self, call: Call) -> Any:
        """Whatever the library does, it is over in time."""
        if call.abort is not None:
            return self.injected(call.abort)
        pool, request = self.outgoing(call)
        until = call.until
        if until is None:
            return await pool.handle_async_request(request)
        try:
            with call.pipeline.clock.deadline(until):
                return await pool.handle_async_request(request)
        except TimeoutError as error:
            told = f"no answer within {until - call.sent_at:.3g} s"
            raise self.shape.module.ReadTimeout(told, request=self.request) from error

    async def discard(self, answer: Any, call: Call) -> None:
        """Give its connection back."""
        await answer.aclose()


class MeshTransport(_Shape):
    """A blocking transport to mount at ``mesh://``. Use ``transport`` or ``client`` to make one."""

    def handle_request(self, request: Any) -> Any:
        """One call. Raises what the library raises; errors of the mesh are errors of the library, too."""
        # Before there is an answer, which would be lost if this came to no good end.
        while self.pools.given_up:
            self.pools.given_up.pop().close()
        url = request.url
        target, pipeline = self.kept.get((url.raw_host, url.port, request.method), _NONE_KEPT)
        if pipeline is None or pipeline.retired:
            target = self.target(request)
            pipeline = self.pipeline(request, target, self.mesh.callee(*target))
        try:
            return block(through(_BlockingExchange(self, request), target, self.find, pipeline))
        except TrimtabError as error:
            raise self.told(error, request) from error.__cause__

    async def find(self, target: Target) -> Any:
        """A service as calls see it."""
        return self.mesh.callee(*target)

    def close(self) -> None:
        """Closes every pooled connection."""
        for pool in self.pools.drain():
            pool.close()

    def __enter__(self) -> MeshTransport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncMeshTransport(_Shape):
    """The asynchronous twin of MeshTransport."""

    mesh: AsyncCalls

    async def handle_async_request(self, request: Any) -> Any:
        """One call. Raises what the library raises; errors of the mesh are errors of the library, too."""
        # Before there is an answer, which would be lost if this came to no good end.
        while self.pools.given_up:
            await self.pools.given_up.pop().aclose()
        url = request.url
        target, pipeline = self.kept.get((url.raw_host, url.port, request.method), _NONE_KEPT)
        if pipeline is None or pipeline.retired:
            target = self.target(request)
            pipeline = self.pipeline(request, target, self.mesh.known(*target))
        try:
            return await through(_AwaitedExchange(self, request), target, self.find, pipeline)
        except TrimtabError as error:
            raise self.told(error, request) from error.__cause__

    async def find(self, target: Target) -> Any:
        """A service as calls see it."""
        return await self.mesh.callee(*target)

    async def aclose(self) -> None:
        """Closes every pooled connection."""
        for pool in self.pools.drain():
            await pool.aclose()

    async def __aenter__(self) -> AsyncMeshTransport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def transport(
    mesh: Calls, *, library_name: str | None = None, scheme: str | None = None, **options: Any
) -> MeshTransport:
    """A transport for one's own client: ``httpx.Client(mounts={"mesh://": transport(mesh)})``.

    ``options`` are those of the library's HTTPTransport and hold for each endpoint's connections; ``scheme`` is what to
    speak to endpoints, by default what the instance's metadata says ("scheme": "https"), else http.
    """
    lib = library(library_name or installed())
    return MeshTransport(mesh, lib, _pool_maker(lib.module, "HTTPTransport", options), lib.stream, scheme)


def async_transport(
    mesh: AsyncCalls, *, library_name: str | None = None, scheme: str | None = None, **options: Any
) -> AsyncMeshTransport:
    """The asynchronous twin of ``transport``."""
    lib = library(library_name or installed())
    make_pool = _pool_maker(lib.module, "AsyncHTTPTransport", options)
    return AsyncMeshTransport(mesh, lib, make_pool, lib.async_stream, scheme)


@overload
def client(mesh: Calls, *, library: Literal["httpx2"], scheme: str | None = ..., **options: Any) -> httpx2.Client: ...
@overload
def client(
    mesh: Calls, *, library: Literal["httpx"] | None = ..., scheme: str | None = ..., **options: Any
) -> httpx.Client: ...
def client(mesh: Calls, *, library: str | None = None, scheme: str | None = None, **options: Any) -> Any:
    """A client of the library that also knows ``mesh://``; ``options`` are the client's own.

    ``library`` is "httpx" or "httpx2", by default the one that is installed. The default timeout is 5 s, and 1 s to
    connect. ``limits`` hold for each endpoint. Proxies of the environment are not used for mesh URLs.
    """
    name = library or installed()
    pool = {key: options[key] for key in POOL_OPTIONS & options.keys()}
    mounted = transport(mesh, library_name=name, scheme=scheme, **pool)
    return _client(name, "Client", mounted, options)


@overload
def async_client(
    mesh: AsyncCalls, *, library: Literal["httpx2"], scheme: str | None = ..., **options: Any
) -> httpx2.AsyncClient: ...
@overload
def async_client(
    mesh: AsyncCalls, *, library: Literal["httpx"] | None = ..., scheme: str | None = ..., **options: Any
) -> httpx.AsyncClient: ...
def async_client(mesh: AsyncCalls, *, library: str | None = None, scheme: str | None = None, **options: Any) -> Any:
    """The asynchronous twin of ``client``."""
    name = library or installed()
    pool = {key: options[key] for key in POOL_OPTIONS & options.keys()}
    mounted = async_transport(mesh, library_name=name, scheme=scheme, **pool)
    return _client(name, "AsyncClient", mounted, options)


def _client(name: str, kind: str, mounted: object, options: dict[str, Any]) -> Any:
    module = library(name).module
    mounts: Mapping[str, Any] = options.pop("mounts", None) or {}
    options.setdefault("timeout", module.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT))
    return getattr(module, kind)(mounts={"mesh://": mounted, **mounts}, **options)


def _pool_maker(module: ModuleType, kind: str, options: Mapping[str, Any]) -> Callable[[str], Any]:
    """Makes the pool of an origin. Trusted certificates are dear to load: once, and only if an endpoint speaks TLS."""
    limits = module.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=KEEPALIVE_EXPIRY)
    shared = {"limits": limits, "trust_env": False, **options}
    verify, cert = shared.pop("verify", True), shared.pop("cert", None)
    trust = cache(lambda: module.create_ssl_context(verify=verify, cert=cert))

    def make(origin: str) -> Any:
        return getattr(module, kind)(verify=trust() if origin.startswith("https:") else False, **shared)

    return make
