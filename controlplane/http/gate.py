"""What every request passes before the application: a request id, the token, the bound on its body, the last resort."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.errors import Code, TrimtabError
from controlplane.http import problem

MAX_BODY_BYTES = 1024 * 1024
MAX_HELD_BYTES = 64 * 1024 * 1024  # bodies of all requests together
BODY_DEADLINE_S = 30.0

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Gate:
    """ASGI middleware around the whole application.

    ``started`` tells whether the view can answer; until then everything under ``/v1`` is NOT_READY.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, started: Callable[[], bool]) -> None:
        self._app = app
        self._credentials = f"Bearer {token}".encode() if token else None
        self._started = started
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit a request, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope["trimtab.request_id"] = request_id
        answering = _Answering(send, request_id)
        try:
            if _is_api(scope["path"]):
                self._admit(headers)
            async with self._body(headers, receive) as body:
                await self._app(scope, _replay(body, receive), answering)
        except TrimtabError as refusal:
            if answering.started:
                raise
            # What is left of a refused body is not read: the connection ends with the answer.
            await problem.response(refusal, request_id=request_id, headers={"Connection": "close"})(
                scope, receive, answering
            )
        except Exception:
            _log.exception("request %s: %s %s failed", request_id, scope["method"], scope["path"])
            if answering.started:
                raise
            failure = TrimtabError(
                Code.INTERNAL, "the server failed on this request", hint=f"its log tells more: request {request_id}"
            )
            await problem.response(failure, request_id=request_id)(scope, receive, answering)

    def _admit(self, headers: Headers) -> None:
        if self._credentials is not None:
            given = headers.get("authorization", "")
            scheme, _, secret = given.partition(" ")
            presented = f"{scheme.capitalize()} {secret.strip()}".encode()
            if not hmac.compare_digest(presented, self._credentials):
                message = "this token is not valid here" if given else "a token is required"
                raise TrimtabError(
                    Code.UNAUTHENTICATED,
                    message,
                    hint="send Authorization: Bearer TOKEN (trimtab: --token or TRIMTAB_TOKEN)",
                )
        if not self._started():
            raise TrimtabError(
                Code.NOT_READY, "this replica has not loaded its view yet", hint="/readyz tells why; try again soon"
            )

    @asynccontextmanager
    async def _body(self, headers: Headers, receive: Receive) -> AsyncIterator[bytes]:
        """The whole body, counted while it is held.

        Raises TOO_LARGE as soon as it is known to pass the bound, FLOOD when all bodies together do, MALFORMED when it does
        not arrive.
        """
        held = bytearray()
        try:
            async with _arrival():
                async for chunk in _chunks(headers, receive):
                    held += chunk
                    self._held += len(chunk)
                    if len(held) > MAX_BODY_BYTES:
                        raise _too_large()
                    if self._held > MAX_HELD_BYTES:
                        raise TrimtabError(Code.FLOOD, "too much is being sent at once", hint="try again in a moment")
            yield bytes(held)
        finally:
            self._held -= len(held)


class _Answering:
    """Sends on, marks every answer with the request's id, and remembers whether one was begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            MutableHeaders(scope=message)["X-Request-Id"] = self._request_id
        await self._send(message)


def _is_api(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")


async def _chunks(headers: Headers, receive: Receive) -> AsyncIterator[bytes]:
    length = headers.get("content-length", "")
    more = bool(length) or "transfer-encoding" in headers
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise TrimtabError(Code.MALFORMED, "the connection ended before the body did")
        yield message.get("body", b"")
        more = message.get("more_body", False)


@asynccontextmanager
async def _arrival() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            yield
    except TimeoutError:
        raise TrimtabError(Code.MALFORMED, f"the body did not arrive within {BODY_DEADLINE_S:g} s") from None


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand the body on in one message, then whatever the server says (that the peer left)."""
    pending: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


def _too_large() -> TrimtabError:
    return TrimtabError(
        Code.TOO_LARGE,
        f"the body is larger than {MAX_BODY_BYTES} bytes",
        hint="a configuration file may have 512 KiB, a policy 256 KiB",
    )
