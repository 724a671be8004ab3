"""``mesh://`` for requests: an adapter to mount on a session.

>>> session.mount("mesh://", mesh.requests_adapter())
>>> session.get("mesh://orders/v1/42").trimtab.endpoint.address
'10.0.0.7'

requests prepares ``params=`` only for URLs whose scheme starts with "http". Mounted at ``http+mesh://`` as well, the same
adapter serves ``http+mesh://orders/v1/?page=2`` with ``params={"page": 2}``; with plain ``mesh://`` write the query into the URL.
"""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Iterator
from http.client import HTTPException
from io import BytesIO
from traceback import walk_tb
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse, Timeout
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError

from trimtab.calling.drive import Blocking, block
from trimtab.core.calling.call import Call
from trimtab.core.retrying.conditions import Outcome
from trimtab.errors import DeadlineExceeded, MeshClosed, NoEndpoints, TrimtabError
from trimtab.fork import tell_of_forks
from trimtab.http.body import Reading
from trimtab.http.exchange import Answer, Exchange, through
from trimtab.http.httpx import CONNECT_TIMEOUT, READ_TIMEOUT, Calls
from trimtab.http.meaning import CALLERS, REFUSED, RESET, TIMEOUT, adopt, judge, onward, too_late
from trimtab.http.target import Target, endpoint_scheme, mesh_location, parse_target

_ENCODING = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class MeshAdapter(HTTPAdapter):
    """Sends each request through the call path. ``options`` are those of HTTPAdapter; connections are pooled per endpoint.

    Without ``timeout=`` a call waits 1 s to connect and 5 s for each read, where requests itself would wait for ever.
    """

    def __init__(self, mesh: Calls, *, scheme: str | None = None, **options: Any) -> None:
        if scheme not in (None, "http", "https"):
            raise ValueError(f"scheme must be 'http' or 'https', not {scheme!r}")
        super().__init__(**{"pool_connections": 256, **options})
        self._mesh = mesh
        self.scheme = scheme
        tell_of_forks(self)

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, *, timeout: Any = None, proxies: Any = None, **options: Any
    ) -> requests.Response:
        """One call. Raises what requests raises; errors of the mesh are errors of requests, too."""
        try:
            target = parse_target(urlsplit(request.url or "").netloc)
        except ValueError as error:
            raise requests.exceptions.InvalidURL(str(error), request=request) from None
        exchange = RequestsExchange(self, request, timeout or (CONNECT_TIMEOUT, READ_TIMEOUT), options)
        try:
            answer: requests.Response = block(through(exchange, target, self._find))
        except TrimtabError as error:
            if isinstance(error, (requests.RequestException, MeshClosed)):
                raise
            base: type[Exception] = requests.RequestException
            if isinstance(error, NoEndpoints):
                base = requests.ConnectionError
            elif isinstance(error, DeadlineExceeded):
                base = requests.Timeout
            raise adopt(error, base, request=request, response=None) from error.__cause__
        return answer

    def send_on(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request to where its URL says. A proxy of the environment has no way to the endpoints of a mesh."""
        return super().send(request, **options)

    async def _find(self, target: Target) -> Any:
        return self._mesh.callee(*target)

    # Forks

    def before_fork(self) -> bool:
        """Connections without threads need no rest."""
        return False

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Speak on none of the parent's connections: two who read from one get each other's answers."""
        known: Any = self
        self.init_poolmanager(known._pool_connections, known._pool_maxsize, block=known._pool_block)


class RequestsExchange(Blocking, Exchange):
    """A request of requests."""

    def __init__(
        self, adapter: MeshAdapter, request: requests.PreparedRequest, timeout: Any, options: dict[str, Any]
    ) -> None:
        self.method = request.method or ""
        self.url = request.url or ""
        self._adapter = adapter
        self._request = request
        self._timeout = _limits(timeout)
        self._options = options

    def facts(self) -> tuple[str, Any]:
        """Path without query, and headers."""
        return urlsplit(self.url).path, self._request.headers

    @property
    def repeatable(self) -> bool:
        """Bytes can be sent again; a file or a generator is read once."""
        return self._request.body is None or isinstance(self._request.body, (bytes, str))

    async def send(self, call: Call) -> requests.Response:
        """Send it to the call's endpoint."""
        endpoint = call.endpoint
        assert endpoint is not None
        now = call.sent_at
        timeout = call.timeout(now)
        if timeout is not None and timeout <= 0:
            raise DeadlineExceeded(too_late(call, now))
        if call.abort is not None:
            return self._injected(call.abort)
        # Its Host header names the service, as the mesh URL does.
        wire = self._request.copy()
        wire.url = f"{endpoint_scheme(endpoint.metadata, self._adapter.scheme)}://{endpoint.target}{wire.path_url}"
        wire.headers.setdefault("Host", urlsplit(self.url).netloc)
        wire.headers.update(onward(call, timeout))
        limits = tuple(
            timeout if seconds is None else seconds if timeout is None else min(seconds, timeout)
            for seconds in self._timeout
        )
        return self._adapter.send_on(wire, timeout=limits, **self._options)

    def judge(self, answer: requests.Response) -> Outcome:
        """By its status."""
        return judge(answer.status_code, answer.headers)

    def status(self, answer: requests.Response) -> str:
        """Its status."""
        return str(answer.status_code)

    @property
    def scheme(self) -> str | None:
        """What to speak, when the client insists."""
        return self._adapter.scheme

    def blame(self, error: BaseException) -> Outcome:
        """By the classes of requests and of what it wraps."""
        if _never_sent(error):
            return REFUSED
        if isinstance(error, (requests.Timeout, DeadlineExceeded)):
            return TIMEOUT
        return RESET if self.failed(error) else CALLERS

    def failed(self, error: BaseException) -> bool:
        """The connection, not the caller's use of the library."""
        return isinstance(error, (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError))

    async def discard(self, answer: requests.Response, call: Call) -> None:
        """Give its connection back."""
        answer.close()

    def answered(self, answer: requests.Response, call: Call) -> None:
        """Have the response end the call, and carry its trace."""
        fallbacks, reading = call.pipeline.fallbacks, Reading(call)
        if fallbacks is not None and self.keeps(call, answer.status_code, answer.headers):
            held = fallbacks
            # The body is kept as it is read: decoded.
            kept_headers = [
                (name.encode(), value.encode())
                for name, value in answer.headers.items()
                if name.lower() not in _ENCODING
            ]

            def keep(body: bytes) -> None:
                held.keep(self.identity, Answer(answer.status_code, kept_headers, body), len(body), call.pipeline.now())

            reading.keep(keep, fallbacks.largest)
        _end_with(answer, reading)
        self._dress(answer, call)

    def restored(self, value: Answer | Any, status: int, call: Call) -> requests.Response:
        """A response of requests."""
        if isinstance(value, Answer):
            headers = {name.decode(): text.decode() for name, text in value.headers}
            response = self._built(value.status, value.body, {**headers, "age": str(int(call.age))})
        else:
            response = self._built(status, json.dumps(value).encode(), {"content-type": "application/json"})
        self._dress(response, call)
        return response

    def _dress(self, response: requests.Response, call: Call) -> None:
        response.request, response.url = self._request, self.url
        response.__dict__["trimtab"] = call
        if "location" in response.headers:
            response.headers["location"] = mesh_location(response.headers["location"], self.url.removeprefix("http+"))

    def _built(self, status: int, body: bytes, headers: dict[str, str]) -> requests.Response:
        raw = HTTPResponse(BytesIO(body), headers, status, preload_content=False)
        response: requests.Response = self._adapter.build_response(self._request, raw)
        return response

    def _injected(self, outcome: Outcome) -> requests.Response:
        """What a fault that the policy asks for looks like."""
        told = "injected by the service's policy"
        if outcome.condition.isdigit():
            return self._built(int(outcome.condition), told.encode(), {"content-type": "text/plain"})
        if not outcome.sent:
            raise requests.ConnectTimeout(told, request=self._request)
        kind = requests.ReadTimeout if outcome.condition == "DEADLINE_EXCEEDED" else requests.ConnectionError
        raise kind(told, request=self._request)


def adapter(mesh: Calls, *, scheme: str | None = None, **options: Any) -> MeshAdapter:
    """An adapter for ``session.mount("mesh://", …)``; ``scheme`` as for the httpx client."""
    return MeshAdapter(mesh, scheme=scheme, **options)


def _limits(timeout: Any) -> tuple[float | None, float | None]:
    """What requests takes as a timeout, in seconds to connect and for each read."""
    if isinstance(timeout, Timeout):
        clock = timeout.clone()
        clock.start_connect()  # without which it tells nobody what a total leaves to reads
        return _seconds(clock.connect_timeout), _seconds(clock.read_timeout)
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return connect, read


def _seconds(told: Any) -> float | None:
    # urllib3 has a word of its own for what nobody said.
    return float(told) if isinstance(told, (int, float)) else None


def _never_sent(error: BaseException) -> bool:
    """Whether the connection itself failed, as requests and urllib3 wrap it."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    if isinstance(reason, MaxRetryError):
        reason = reason.reason
    return isinstance(reason, (NewConnectionError, ConnectTimeoutError))


def _end_with(response: requests.Response, reading: Reading) -> None:
    """End the call when urllib3 gives the response's connection back, which it does once the body was read or broke."""
    # Held weakly by what it holds: so a response that is dropped is gone at once.
    kind: Any = type(response.raw)
    held = weakref.ref(response.raw)

    def read(*args: Any, **options: Any) -> Iterator[bytes]:
        for chunk in kind.stream(held(), *args, **options):
            reading.read(chunk)
            yield chunk
        reading.finished()
        # A response that was made here, by a fault for one, has no connection to give back.
        reading.end()

    def release_and_end() -> None:
        kind.release_conn(held())
        # urllib3 releases while its own error is on the way out: that is how a truncated body is told from a whole one. What
        # its caller is just handling has not come by here.
        error = sys.exc_info()[1]
        if isinstance(error, (HTTPError, HTTPException, OSError)) and _came_by(error, sys._getframe(1)):
            reading.broke(error)
        else:
            reading.end()

    response.raw.__dict__.update(release_conn=release_and_end, stream=read)


def _came_by(error: BaseException, frame: FrameType) -> bool:
    return any(passed is frame for passed, _ in walk_tb(error.__traceback__))
