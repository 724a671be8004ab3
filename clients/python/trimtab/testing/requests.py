"""requests in tests: the connections of a mesh adapter end at a script."""

from __future__ import annotations

from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3 import HTTPResponse
from urllib3.exceptions import MaxRetryError, NewConnectionError

from trimtab.http.httpx import Calls
from trimtab.http.requests import MeshAdapter
from trimtab.testing.script import Reply
from trimtab.testing.stage import Stage


class StagedAdapter(MeshAdapter):
    """A mesh adapter whose requests a stage answers."""

    def __init__(self, mesh: Calls, stage: Stage, **options: Any) -> None:
        super().__init__(mesh, **options)
        self._stage = stage

    def send_on(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Answer a request."""
        body = request.body or b""
        url = urlsplit(request.url or "")
        outcome = self._stage.answer(
            url.netloc,
            request.method or "",
            request.path_url,
            {name.lower(): str(value) for name, value in request.headers.items()},
            body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else b"".join(body),
            options["timeout"][1],
        )
        if outcome is None:
            return super().send_on(request, **options)
        self._stage.clock.sleep(outcome.seconds)
        reply = outcome.reply
        if not isinstance(reply, Reply):
            raise _told(reply, request)
        headers, content = reply.wire()
        raw = HTTPResponse(BytesIO(content), headers, reply.status, preload_content=False)
        response: requests.Response = self.build_response(request, raw)
        return response


def _told(error: BaseException, request: requests.PreparedRequest) -> BaseException:
    """An error as requests tells it."""
    told = str(error)
    if isinstance(error, ConnectionRefusedError):
        refused = NewConnectionError(None, told or "connection refused")  # type: ignore[arg-type]
        return requests.ConnectionError(MaxRetryError(None, request.url or "", refused), request=request)  # type: ignore[arg-type]
    if isinstance(error, TimeoutError):
        return requests.ReadTimeout(told or "no answer", request=request)
    if isinstance(error, ConnectionError):
        return requests.ConnectionError(told or "connection reset", request=request)
    return error
