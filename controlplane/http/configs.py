"""Configuration files: the current release of each, published and withdrawn under a precondition."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from controlplane.core.view import View
from controlplane.errors import Code, TrimtabError, Violation
from controlplane.http import etag, models, presentation, problem
from controlplane.http.actor import Actor
from controlplane.http.names import App, File, Namespace
from controlplane.http.paging import ListQuery, WatchQuery, no_query, page
from controlplane.http.watch import CONFIGS, EVENT_STREAM, Source, Watches
from controlplane.runtime.operations import Operations

_WRITE = problem.documented(
    Code.PRECONDITION,
    Code.PRECONDITION_REQUIRED,
    Code.CONFLICT,
    Code.NOT_FOUND,
    Code.TOO_LARGE,
    Code.STORE_UNAVAILABLE,
    Code.STORE_TIMEOUT,
)
_CREATED: dict[int | str, dict[str, Any]] = {201: {"model": models.Config, "description": "It did not exist before."}}


def router(view: View, operations: Operations, watches: Watches) -> APIRouter:
    """Routes below ``/v1/namespaces/{namespace}/configs``."""
    routes = APIRouter(prefix="/v1/namespaces/{namespace}/configs", tags=["configuration"])
    _reads(routes, view, watches)
    _writes(routes, view, operations)
    return routes


def _reads(routes: APIRouter, view: View, watches: Watches) -> None:
    def listed(namespace: str) -> list[models.Config]:
        return [presentation.config(stored) for stored in view.configs(namespace)]

    @routes.get(
        "",
        operation_id="listConfigs",
        response_model=models.Listing[models.Config],
        responses=problem.documented() | EVENT_STREAM,
    )
    async def list_configs(namespace: Namespace, query: Annotated[ListQuery, Query()]) -> Any:
        """Configuration files of a namespace, without their content."""
        query.refuse_paged_watch()
        if query.watch:
            return watches.stream(Source.of(view, lambda: listed(namespace), CONFIGS, namespace))
        shown, token = page(view.configs(namespace), lambda stored: stored.ref.path, query, of=f"{namespace}/configs")
        items = [presentation.config(stored) for stored in shown]
        return models.Listing[models.Config](items=items, next_page_token=token, revision=view.revision)

    @routes.get(
        "/{app}/{file}",
        operation_id="getConfig",
        response_model=models.ConfigRelease,
        responses=problem.documented(Code.NOT_FOUND) | EVENT_STREAM | etag.NOT_MODIFIED,
    )
    async def get_config(
        namespace: Namespace,
        app: App,
        file: File,
        query: Annotated[WatchQuery, Query()],
        request: Request,
        response: Response,
    ) -> Any:
        """The current release of a configuration file. Its ETag is what a write names in ``If-Match``."""

        def now() -> list[models.ConfigRelease]:
            stored = view.config(namespace, app, file)
            return [] if stored is None else [presentation.release(stored)]

        if query.watch:
            return watches.stream(Source.of(view, now, CONFIGS, namespace, app, file))
        found = now()
        if not found:
            hint = f"`trimtab config list -n {namespace}` lists those that there are"
            raise TrimtabError(Code.NOT_FOUND, f"there is no configuration {namespace}/{app}/{file}", hint=hint)
        return etag.answer(found[0], etag.strong(found[0].revision), request, response)


def _writes(routes: APIRouter, view: View, operations: Operations) -> None:
    guarded = [Depends(no_query), Depends(etag.documented)]

    def current(namespace: str, app: str, file: str) -> int | None:
        stored = view.config(namespace, app, file)
        return None if stored is None else stored.revision

    @routes.put(
        "/{app}/{file}",
        operation_id="putConfig",
        dependencies=guarded,
        response_model=models.Config,
        responses=_WRITE | _CREATED,
    )
    async def put_config(
        namespace: Namespace,
        app: App,
        file: File,
        body: models.ConfigWanted,
        actor: Actor,
        request: Request,
        response: Response,
    ) -> Any:
        """Publish a release. Needs ``If-Match`` or ``If-None-Match: *``, so that no one's work is overwritten unseen."""
        expect = etag.expected(request.headers, current(namespace, app, file))
        revision = await operations.put_config(
            namespace, app, file, format=body.format, content=_content(body), author=actor, expect=expect
        )
        response.status_code = 201 if expect == 0 else 200
        response.headers["ETag"] = etag.strong(revision)
        stored = view.config(namespace, app, file)
        if stored is None:
            raise TrimtabError(Code.CONFLICT, f"published at revision {revision}, and withdrawn by another since")
        return presentation.config(stored)

    @routes.delete(
        "/{app}/{file}",
        operation_id="deleteConfig",
        dependencies=guarded,
        response_model=models.Withdrawn,
        responses=_WRITE,
    )
    async def delete_config(namespace: Namespace, app: App, file: File, request: Request) -> Any:
        """Withdraw a configuration file; clients keep the last value that they have. Needs ``If-Match``."""
        held = current(namespace, app, file)
        expect = etag.expected(request.headers, held)
        return models.Withdrawn(revision=await operations.delete_config(namespace, app, file, expect=expect))


def _content(body: models.ConfigWanted) -> bytes:
    try:
        if body.encoding == "base64":
            return base64.b64decode(body.content, validate=True)
        return body.content.encode()
    except binascii.Error as error:
        found = Violation("content", f"not base64: {error}", "standard alphabet, with padding")
    except UnicodeEncodeError:
        found = Violation("content", "it has half of a surrogate pair, which is no character", "send bytes as base64")
    raise TrimtabError(Code.INVALID, "the request was refused", violations=[found])
