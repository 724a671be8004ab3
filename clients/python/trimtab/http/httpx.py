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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, overload

from trimtab.errors import NoEndpoints
from trimtab.http.body import AsyncBody, Body, Call
from trimtab.http.exchange import PickView, Plan, Trace, Unreachable, drive, drive_async, exchange
from trimtab.http.pools import Pools
from trimtab.http.target import Target, endpoint_scheme, mesh_location, parse_target

if TYPE_CHECKING:
    import httpx
    import httpx2

# A mesh knows other endpoints, so waiting long for one to accept a connection makes no sense; seconds.
CONNECT_TIMEOUT = 1.0
READ_TIMEOUT = 5.0
# Shorter than the keep-alive of common servers (gunicorn 2 s, uvicorn 5 s): a connection is given up by its client
# before its server closes it under a request.
KEEPALIVE_EXPIRY = 1.5

_POOL_OPTIONS = frozenset({"verify", "cert", "http1", "http2", "limits"})


class Picks(Protocol):
    """What the transport needs of a mesh; the asynchronous twin returns an awaitable."""

    def pick(self, service: str, *, namespace: str | None = ..., exclude: Collection[str] = ...) -> Any:
        """Pick an endpoint other than those with the excluded ids. Raises NoEndpoints."""
        ...


@dataclass(frozen=True, slots=True)
class Library:
    """httpx or httpx2: the module, and the classes that must descend from its own."""

    module: ModuleType
    no_endpoints: type[Exception]
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
        type("NoEndpoints", (NoEndpoints, module.ConnectError), {"__doc__": NoEndpoints.__doc__}),
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


class _WireRequest(NamedTuple):
    """What the libraries' own transports read of a request. Their Request would parse the URL twice more, 90 µs."""

    method: str
    url: _WireURL
    headers: Any
    stream: Any
    extensions: Any


class _Shape:
    """What both transports share: reading the URL, addressing the endpoint, accounting for the call, translating errors."""

    def __init__(
        self, mesh: Picks, library: Library, make_pool: Callable[[str], Any], stream: type[Any], scheme: str | None
    ) -> None:
        if scheme not in (None, "http", "https"):
            raise ValueError(f"scheme must be 'http' or 'https', not {scheme!r}")
        self._mesh = mesh
        self._library = library
        self._pools: Pools[Any] = Pools(make_pool)
        self._stream = stream
        self._scheme = scheme

    def _target(self, request: Any) -> Target:
        try:
            return parse_target(request.url.netloc.decode("ascii"))
        except ValueError as error:
            raise self._library.module.UnsupportedProtocol(str(error), request=request) from None

    def _origin(self, pick: PickView) -> str:
        return f"{endpoint_scheme(pick.endpoint.metadata, self._scheme)}://{pick.endpoint.target}"

    def _plan(self, request: Any, target: Target, send: Callable[[PickView], Any]) -> Plan:
        def choose(tried: Collection[str]) -> Any:
            return self._mesh.pick(target.service, namespace=target.namespace, exclude=tried)

        module = self._library.module
        connect_failures = (module.ConnectError, module.ConnectTimeout)
        return exchange(str(target), choose, send, lambda error: isinstance(error, connect_failures))

    def _to_wire(self, request: Any, pick: PickView) -> _WireRequest:
        """The same request, to the endpoint; the headers stay, and with them the Host of the mesh URL."""
        endpoint, address = pick.endpoint, pick.endpoint.address
        url = _WireURL(
            endpoint_scheme(endpoint.metadata, self._scheme).encode("ascii"),
            address.encode("ascii" if address.isascii() else "idna"),
            endpoint.port,
            request.url.raw_path,
        )
        return _WireRequest(request.method, url, request.headers, request.stream, request.extensions)

    def _answered(self, request: Any, response: Any, pick: PickView, trace: Trace) -> Any:
        origin = self._origin(pick)
        call = Call(pick, lambda: self._pools.release(origin), trace, ok=response.status_code < 500)
        response.stream = self._stream(response.stream, call)
        response.extensions["trimtab"] = trace
        if response.has_redirect_location:
            response.headers["location"] = mesh_location(response.headers["location"], str(request.url))
        return response

    def _translate(self, error: Exception, request: Any) -> Exception:
        """The error of the mesh as one that the library's users catch as well."""
        if isinstance(error, NoEndpoints) and not isinstance(error, self._library.no_endpoints):
            return _adopt(self._library.no_endpoints, error, request)
        if isinstance(error, Unreachable):
            kind = type(error.cause)
            translated: Exception = kind(str(error), request=request)  # type: ignore[call-arg]
            translated.__dict__["trimtab"] = error.trace
            return translated
        return error


def _adopt(kind: type[Exception], error: Exception, request: Any) -> Exception:
    """``error`` as an instance of ``kind``, a subclass of its class: same message, same attributes."""
    adopted = kind.__new__(kind)
    adopted.args = error.args
    adopted.__dict__.update(error.__dict__, _request=request)
    return adopted


class MeshTransport(_Shape):
    """A blocking transport to mount at ``mesh://``. Use ``transport`` or ``client`` to make one."""

    def handle_request(self, request: Any) -> Any:
        """One call. Raises what the library raises, and NoEndpoints, which is a ConnectError of the library too."""

        def send(pick: PickView) -> Any:
            origin = self._origin(pick)
            pool = self._pools.acquire(origin)
            try:
                return pool.handle_request(self._to_wire(request, pick))
            except BaseException:
                self._pools.release(origin)
                raise

        target = self._target(request)
        try:
            response, pick, trace = drive(self._plan(request, target, send))
        except (NoEndpoints, Unreachable) as error:
            raise self._translate(error, request) from error.__cause__
        for pool in self._pools.idle():
            pool.close()
        return self._answered(request, response, pick, trace)

    def close(self) -> None:
        """Closes every pooled connection."""
        for pool in self._pools.drain():
            pool.close()

    def __enter__(self) -> MeshTransport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncMeshTransport(_Shape):
    """The asynchronous twin of MeshTransport."""

    async def handle_async_request(self, request: Any) -> Any:
        """One call. Raises what the library raises, and NoEndpoints, which is a ConnectError of the library too."""

        async def send(pick: PickView) -> Any:
            origin = self._origin(pick)
            pool = self._pools.acquire(origin)
            try:
                return await pool.handle_async_request(self._to_wire(request, pick))
            except BaseException:
                self._pools.release(origin)
                raise

        target = self._target(request)
        try:
            response, pick, trace = await drive_async(self._plan(request, target, send))
        except (NoEndpoints, Unreachable) as error:
            raise self._translate(error, request) from error.__cause__
        for pool in self._pools.idle():
            await pool.aclose()
        return self._answered(request, response, pick, trace)

    async def aclose(self) -> None:
        """Closes every pooled connection."""
        for pool in self._pools.drain():
            await pool.aclose()

    async def __aenter__(self) -> AsyncMeshTransport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def transport(
    mesh: Picks, *, library_name: str | None = None, scheme: str | None = None, **options: Any
) -> MeshTransport:
    """A transport for one's own client: ``httpx.Client(mounts={"mesh://": transport(mesh)})``.

    ``options`` are those of the library's HTTPTransport and hold for each endpoint's connections; ``scheme`` is what to
    speak to endpoints, by default what the instance's metadata says ("scheme": "https"), else http.
    """
    lib = library(library_name or installed())
    return MeshTransport(mesh, lib, _pool_maker(lib.module, "HTTPTransport", options), lib.stream, scheme)


def async_transport(
    mesh: Picks, *, library_name: str | None = None, scheme: str | None = None, **options: Any
) -> AsyncMeshTransport:
    """The asynchronous twin of ``transport``."""
    lib = library(library_name or installed())
    make_pool = _pool_maker(lib.module, "AsyncHTTPTransport", options)
    return AsyncMeshTransport(mesh, lib, make_pool, lib.async_stream, scheme)


@overload
def client(mesh: Picks, *, library: Literal["httpx2"], scheme: str | None = ..., **options: Any) -> httpx2.Client: ...
@overload
def client(
    mesh: Picks, *, library: Literal["httpx"] | None = ..., scheme: str | None = ..., **options: Any
) -> httpx.Client: ...
def client(mesh: Picks, *, library: str | None = None, scheme: str | None = None, **options: Any) -> Any:
    """A client of the library that also knows ``mesh://``; ``options`` are the client's own.

    ``library`` is "httpx" or "httpx2", by default the one that is installed. The default timeout is 5 s, and 1 s to
    connect. ``limits`` hold for each endpoint. Proxies of the environment are not used for mesh URLs.
    """
    name = library or installed()
    pool = {key: options[key] for key in _POOL_OPTIONS & options.keys()}
    mounted = transport(mesh, library_name=name, scheme=scheme, **pool)
    return _client(name, "Client", mounted, options)


@overload
def async_client(
    mesh: Picks, *, library: Literal["httpx2"], scheme: str | None = ..., **options: Any
) -> httpx2.AsyncClient: ...
@overload
def async_client(
    mesh: Picks, *, library: Literal["httpx"] | None = ..., scheme: str | None = ..., **options: Any
) -> httpx.AsyncClient: ...
def async_client(mesh: Picks, *, library: str | None = None, scheme: str | None = None, **options: Any) -> Any:
    """The asynchronous twin of ``client``."""
    name = library or installed()
    pool = {key: options[key] for key in _POOL_OPTIONS & options.keys()}
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
