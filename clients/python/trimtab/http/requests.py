"""``mesh://`` for requests: an adapter to mount on a session.

>>> session.mount("mesh://", mesh.requests_adapter())
>>> session.get("mesh://orders/v1/42").trimtab.endpoint.address
'10.0.0.7'

requests prepares ``params=`` only for URLs whose scheme starts with "http". Mounted at ``http+mesh://`` as well, the same
adapter serves ``http+mesh://orders/v1/?page=2`` with ``params={"page": 2}``; with plain ``mesh://`` write the query into the URL.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError

from trimtab.errors import NoEndpoints as MeshNoEndpoints
from trimtab.http.exchange import PickView, Trace, Unreachable, drive, exchange, name_endpoint
from trimtab.http.httpx import CONNECT_TIMEOUT, READ_TIMEOUT, Picks
from trimtab.http.target import endpoint_scheme, mesh_location, parse_target


class NoEndpoints(MeshNoEndpoints, requests.ConnectionError):
    """No endpoint to call: both the mesh's NoEndpoints and a ConnectionError of requests."""


class MeshAdapter(HTTPAdapter):
    """Picks an endpoint for each request. ``options`` are those of HTTPAdapter; connections are pooled per endpoint.

    Without ``timeout=`` a call waits 1 s to connect and 5 s for each read, where requests itself would wait for ever.
    """

    def __init__(self, mesh: Picks, *, scheme: str | None = None, **options: Any) -> None:
        if scheme not in (None, "http", "https"):
            raise ValueError(f"scheme must be 'http' or 'https', not {scheme!r}")
        super().__init__(**{"pool_connections": 256, **options})
        self._mesh = mesh
        self._scheme = scheme

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, *, timeout: Any = None, proxies: Any = None, **options: Any
    ) -> requests.Response:
        """One call. Raises what requests raises, and NoEndpoints, which is a ConnectionError too."""
        url = request.url or ""
        authority = urlsplit(url).netloc
        try:
            target = parse_target(authority)
        except ValueError as error:
            raise requests.exceptions.InvalidURL(str(error), request=request) from None

        def choose(tried: Collection[str]) -> Any:
            return self._mesh.pick(target.service, namespace=target.namespace, exclude=tried)

        def send(pick: PickView) -> requests.Response:
            # A proxy of the environment has no way to the endpoints of a mesh, so none is handed on.
            wire = self._to_wire(request, authority, pick)
            return HTTPAdapter.send(self, wire, timeout=timeout or (CONNECT_TIMEOUT, READ_TIMEOUT), **options)

        try:
            response, pick, trace = drive(exchange(str(target), choose, send, _never_sent))
        except MeshNoEndpoints as error:
            adopted = NoEndpoints.__new__(NoEndpoints)
            adopted.args = error.args
            adopted.__dict__.update(error.__dict__, request=request, response=None)
            raise adopted from error.__cause__
        except Unreachable as error:
            translated = type(error.cause)(str(error), request=request)  # type: ignore[call-arg]
            translated.__dict__["trimtab"] = error.trace
            raise translated from error.cause
        _end_with(response, pick, trace)
        response.request, response.url = request, url
        response.trimtab = trace
        if "location" in response.headers:
            mesh_url = url.removeprefix("http+")
            response.headers["location"] = mesh_location(response.headers["location"], mesh_url)
        answer: requests.Response = response
        return answer

    def _to_wire(self, request: requests.PreparedRequest, authority: str, pick: PickView) -> requests.PreparedRequest:
        """The same request, to the endpoint; its Host header names the service, as the mesh URL does."""
        scheme = endpoint_scheme(pick.endpoint.metadata, self._scheme)
        wire = request.copy()
        wire.url = f"{scheme}://{pick.endpoint.target}{request.path_url}"
        wire.headers.setdefault("Host", authority)
        return wire


def adapter(mesh: Picks, *, scheme: str | None = None, **options: Any) -> MeshAdapter:
    """An adapter for ``session.mount("mesh://", …)``; ``scheme`` as for the httpx client."""
    return MeshAdapter(mesh, scheme=scheme, **options)


def _never_sent(error: BaseException) -> bool:
    """Whether the connection itself failed, as requests and urllib3 wrap it."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    if isinstance(reason, MaxRetryError):
        reason = reason.reason
    return isinstance(reason, (NewConnectionError, ConnectTimeoutError))


def _end_with(response: requests.Response, pick: PickView, trace: Trace) -> None:
    """Ends the call when urllib3 gives the response's connection back, which it does once the body was read or broke."""
    raw, release, lock = response.raw, response.raw.release_conn, threading.Lock()
    over = False

    def release_and_end() -> None:
        nonlocal over
        release()
        with lock:
            if over:
                return
            over = True
        # urllib3 releases while its own error is on the way out: that is how a truncated body is told from a whole one.
        error = sys.exc_info()[1]
        broken = isinstance(error, (HTTPError, HTTPException, OSError))
        if error is not None and broken:
            name_endpoint(error, trace)
        pick.done(response.status_code < 500 and not broken)

    raw.__dict__["release_conn"] = release_and_end
