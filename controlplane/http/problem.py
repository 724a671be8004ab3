"""The one place where a refusal becomes an HTTP answer: problem+json (RFC 9457) with the catalogue's stable code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from controlplane.errors import Code, TrimtabError, Violation

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

_HINTS = {
    "extra_forbidden": "leave it out, or look its name up in /v1/openapi.json",
    "missing": "it is required",
}


class Place(BaseModel):
    """One place in the request and what is wrong there."""

    path: str = Field(
        description="As `weight` in a body or path, `query.page_size`, `header.If-Match`, `spec.default.retry` in a document."
    )
    line: int = Field(0, description="Line of a document, from 1; 0: not known.")
    column: int = Field(0, description="Column of a document, from 1; 0: not known.")
    message: str
    hint: str = ""


class Problem(BaseModel):
    """Why a request was refused (RFC 9457). `code` is stable, and the same over gRPC."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:trimtab:error:instance.not_found",
                    "title": "Instance not found",
                    "status": 404,
                    "code": "instance.not_found",
                    "detail": "default/orders has no instance 'a'",
                    "hint": "`trimtab get instances orders` lists those that there are",
                    "errors": [],
                    "retryable": False,
                    "request_id": "5f0c2f1e",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str = ""
    errors: list[Place] = []
    retryable: bool = Field(False, description="The same request may succeed later, unchanged.")
    request_id: str = ""


def response(error: TrimtabError, *, request_id: str = "", headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that was refused."""
    code = error.code
    problem = Problem(
        type=f"urn:trimtab:error:{code.code}",
        title=code.name.replace("_", " ").capitalize(),
        status=code.http_status,
        code=code.code,
        detail=error.message,
        hint=error.hint,
        errors=[
            Place(path=v.path, line=v.line, column=v.column, message=v.message, hint=v.hint) for v in error.violations
        ],
        retryable=code.retryable,
        request_id=request_id,
    )
    merged = dict(headers or {})
    if code.http_status in {429, 503}:
        merged.setdefault("Retry-After", str(RETRY_AFTER_S))
    if code is Code.UNAUTHENTICATED:
        merged.setdefault("WWW-Authenticate", 'Bearer realm="trimtab"')
    return Response(problem.model_dump_json(), code.http_status, headers=merged, media_type=MEDIA_TYPE)


def install(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Answer every refusal of ``app`` with a problem. ``routers`` are those that it includes."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]

    async def unrouted(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        allowed = _allowed(request, routes) or "GET"
        headers = {"Allow": allowed} if error.status_code == Code.METHOD.http_status else {}
        return response(_unrouted(request, error, allowed), request_id=_request_id(request), headers=headers)

    app.add_exception_handler(TrimtabError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, unrouted)


def documented(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the refusals of an operation, beside those that any operation may answer."""
    described: dict[int | str, list[str]] = {}
    for code in (*codes, Code.INVALID, Code.UNAUTHENTICATED, Code.NOT_READY):
        described.setdefault(code.http_status, []).append(f"`{code.code}`")
    schema = {"$ref": "#/components/schemas/Problem"}
    answers: dict[int | str, dict[str, Any]] = {
        status: {"description": "Refused: " + ", ".join(names), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status, names in described.items()
    }
    answers["default"] = {"description": "Any other refusal or failure.", "content": {MEDIA_TYPE: {"schema": schema}}}
    return answers


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, TrimtabError)
    return response(error, request_id=_request_id(request))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return response(_translated(error.errors()), request_id=_request_id(request))


def _unrouted(request: Request, error: HTTPException, allowed: str) -> TrimtabError:
    """Starlette's own refusals: no such path, or not with this method."""
    if error.status_code == Code.METHOD.http_status:
        return TrimtabError(Code.METHOD, f"{request.method} is not possible here", hint=f"possible: {allowed}")
    if error.status_code == Code.NOT_FOUND.http_status:
        return TrimtabError(
            Code.NOT_FOUND, f"there is nothing at {request.url.path}", hint="/v1/openapi.json lists every path"
        )
    return TrimtabError(Code.MALFORMED, str(error.detail))


def _allowed(request: Request, routes: Sequence[APIRoute]) -> str:
    """Every method of a path; Starlette names those of its first route only."""
    matching = (route.methods for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(sorted({method for methods in matching for method in methods or ()}))


def _translated(items: Sequence[Mapping[str, Any]]) -> TrimtabError:
    for item in items:
        if item["type"] == "json_invalid":
            where = item["loc"][-1]
            reason = item.get("ctx", {}).get("error", "")
            return TrimtabError(Code.MALFORMED, f"the body is not JSON: {reason} at character {where}")
    return TrimtabError(Code.INVALID, "the request was refused", violations=[_violation(item) for item in items])


def _violation(item: Mapping[str, Any]) -> Violation:
    source, *rest = (str(part) for part in item["loc"])
    place = ".".join(rest)
    path = place if source in {"body", "path"} else f"{source}.{place}"
    hint = item.get("ctx", {}).get("hint") or _HINTS.get(item["type"], "")
    return Violation(path or "body", _shortened(item), hint)


def _shortened(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return "not known here"
    given = item.get("input")
    message = str(item["msg"])
    if item["type"] in ("missing", "name") or given is None or isinstance(given, dict | list):
        return message
    shown = json.dumps(given, default=str)
    return f"{message}, not {shown if len(shown) <= 64 else shown[:60] + '…'}"


def _request_id(request: Request) -> str:
    return str(request.scope.get("trimtab.request_id", ""))
