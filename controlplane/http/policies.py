"""Resilience policies: put in force and withdrawn under a precondition, who has got them, and what holds for a call."""

from __future__ import annotations

from asyncio import to_thread
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from controlplane.core.view import View
from controlplane.errors import Code, TrimtabError, Violation
from controlplane.http import etag, explanation, models, presentation, problem
from controlplane.http.actor import Actor
from controlplane.http.names import Namespace, PolicyName, Service
from controlplane.http.paging import ListQuery, WatchQuery, no_query, page
from controlplane.http.watch import EVENT_STREAM, POLICIES, Source, Watches
from controlplane.runtime.clients import Clients
from controlplane.runtime.operations import Operations

_WRITE = problem.documented(
    Code.POLICY_INVALID,
    Code.PRECONDITION,
    Code.PRECONDITION_REQUIRED,
    Code.CONFLICT,
    Code.NOT_FOUND,
    Code.TOO_LARGE,
    Code.STORE_UNAVAILABLE,
    Code.STORE_TIMEOUT,
)
_CREATED: dict[int | str, dict[str, Any]] = {201: {"model": models.PolicyOutcome, "description": "There was none."}}
_YAML = ("application/yaml", "application/x-yaml", "text/yaml")
_BODY = {
    "requestBody": {
        "required": True,
        "description": "A `ServicePolicy`; `/v1/policies:schema` tells its shape. YAML is kept as it was written.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/yaml": {"schema": {"type": "string"}},
        },
    }
}


class WriteQuery(BaseModel):
    """How to write."""

    model_config = ConfigDict(extra="forbid")

    validate_only: bool = Field(False, description="Check everything, write nothing.")


class CallQuery(BaseModel):
    """Which call. What is left out fits no route that asks for it."""

    model_config = ConfigDict(extra="forbid")

    caller: str = Field("", alias="from", max_length=128, description="Name of the calling program.")
    method: str = Field("", max_length=256, description="HTTP method, or name of an RPC.")
    path: str = Field("", max_length=2048, description="HTTP path.")
    header: list[str] = Field([], max_length=64, description="Header or metadata key, as NAME=VALUE.")


def router(view: View, operations: Operations, clients: Clients, watches: Watches) -> APIRouter:
    """Routes below ``/v1/namespaces/{namespace}/policies``, the schema, and what holds for a call to a service."""
    routes = APIRouter(prefix="/v1", tags=["policies"])
    _reads(routes, view, watches)
    _writes(routes, view, operations)
    _effects(routes, view, clients)
    return routes


def _reads(routes: APIRouter, view: View, watches: Watches) -> None:
    def listed(namespace: str) -> list[models.Policy]:
        return [presentation.policy(stored) for stored in view.policies(namespace)]

    @routes.get(
        "/policies:schema",
        operation_id="getPolicySchema",
        dependencies=[Depends(no_query)],
        responses=problem.documented(),
    )
    async def get_policy_schema() -> dict[str, Any]:
        """JSON Schema of a policy document, for editors and pipelines."""
        return explanation.schema()

    @routes.get(
        "/namespaces/{namespace}/policies",
        operation_id="listPolicies",
        response_model=models.Listing[models.Policy],
        responses=problem.documented() | EVENT_STREAM,
    )
    async def list_policies(namespace: Namespace, query: Annotated[ListQuery, Query()]) -> Any:
        """Policies of a namespace, without their content."""
        query.refuse_paged_watch()
        if query.watch:
            return watches.stream(Source.of(view, lambda: listed(namespace), POLICIES, namespace))
        shown, token = page(view.policies(namespace), lambda stored: stored.ref.path, query, of=f"{namespace}/policies")
        items = [presentation.policy(stored) for stored in shown]
        return models.Listing[models.Policy](items=items, next_page_token=token, revision=view.revision)

    @routes.get(
        "/namespaces/{namespace}/policies/{service}",
        operation_id="getPolicy",
        response_model=models.PolicyContent,
        responses=problem.documented(Code.NOT_FOUND) | EVENT_STREAM | etag.NOT_MODIFIED,
    )
    async def get_policy(
        namespace: Namespace,
        service: PolicyName,
        query: Annotated[WatchQuery, Query()],
        request: Request,
        response: Response,
    ) -> Any:
        """One policy. Its ETag is what a write names in ``If-Match``."""

        async def now() -> tuple[int, list[models.PolicyContent]]:
            stored, revision = view.policy(namespace, service), view.revision
            # In a thread: to write a large one out takes longer than a push may wait.
            return revision, [] if stored is None else [await to_thread(presentation.policy_content, stored)]

        if query.watch:
            return watches.stream(Source(now, (POLICIES, namespace, service)))
        _, found = await now()
        if not found:
            hint = f"`trimtab get policies -n {namespace}` lists those that there are"
            raise TrimtabError(Code.NOT_FOUND, f"there is no policy {namespace}/{service}", hint=hint)
        return etag.answer(found[0], etag.strong(found[0].revision), request, response)


def _writes(routes: APIRouter, view: View, operations: Operations) -> None:
    def current(namespace: str, service: str) -> int | None:
        stored = view.policy(namespace, service)
        return None if stored is None else stored.revision

    @routes.put(
        "/namespaces/{namespace}/policies/{service}",
        operation_id="putPolicy",
        dependencies=[Depends(etag.documented)],
        response_model=models.PolicyOutcome,
        responses=_WRITE | _CREATED,
        openapi_extra=_BODY,
    )
    async def put_policy(
        namespace: Namespace,
        service: PolicyName,
        query: Annotated[WriteQuery, Query()],
        actor: Actor,
        request: Request,
        response: Response,
    ) -> Any:
        """Put a policy in force; clients that call the service follow it at once. Needs ``If-Match`` or ``If-None-Match: *``."""
        keep_source = _is_yaml(request)
        expect = etag.expected(request.headers, current(namespace, service))
        revision = await operations.put_policy(
            namespace,
            service,
            await request.body(),
            author=actor,
            keep_source=keep_source,
            expect=expect,
            validate_only=query.validate_only,
        )
        if not query.validate_only:
            response.status_code = 201 if expect == 0 else 200
            response.headers["ETag"] = etag.strong(revision)
        stored = view.policy(namespace, service)
        return models.PolicyOutcome(revision=revision, policy=presentation.policy(stored) if stored else None)

    @routes.delete(
        "/namespaces/{namespace}/policies/{service}",
        operation_id="deletePolicy",
        dependencies=[Depends(no_query), Depends(etag.documented)],
        response_model=models.Withdrawn,
        responses=_WRITE,
    )
    async def delete_policy(namespace: Namespace, service: PolicyName, request: Request) -> Any:
        """Withdraw a policy: what the namespace says, or what is built in, holds again. Needs ``If-Match``."""
        expect = etag.expected(request.headers, current(namespace, service))
        return models.Withdrawn(revision=await operations.delete_policy(namespace, service, expect=expect))


def _effects(routes: APIRouter, view: View, clients: Clients) -> None:
    @routes.get(
        "/namespaces/{namespace}/policies/{service}/rollout",
        operation_id="getPolicyRollout",
        dependencies=[Depends(no_query)],
        response_model=models.Rollout,
        responses=problem.documented(),
    )
    async def get_policy_rollout(namespace: Namespace, service: PolicyName) -> Any:
        """Which connected clients follow a policy, and whether they have got it. One that is gone is rolled out, too."""
        [found] = await explanation.rollouts(view, clients, [f"{namespace}/{service}"])
        return found

    @routes.get(
        "/namespaces/{namespace}/services/{service}/effective-policy",
        operation_id="getEffectivePolicy",
        response_model=models.EffectivePolicy,
        responses=problem.documented(),
    )
    async def get_effective_policy(namespace: Namespace, service: Service, query: Annotated[CallQuery, Query()]) -> Any:
        """What holds for a call to a service, section by section, which document says so, and who has got it."""
        headers = {}
        for place, header in enumerate(query.header):
            name, equals, value = header.partition("=")
            if not name or not equals:
                wrong = Violation(f"query.header[{place}]", f"{header[:64]!r} is no header", "NAME=VALUE")
                raise TrimtabError(Code.INVALID, "the request was refused", violations=[wrong])
            headers[name.lower()] = value
        call = explanation.Call(query.caller, query.method, query.path, headers)
        return await explanation.effective(view, clients, namespace, service, call)


def _is_yaml(request: Request) -> bool:
    """Raises INVALID for a body that is neither YAML nor JSON by its type."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in {"application/json", *_YAML}:
        place = Violation(
            "header.Content-Type", f"{media_type[:64]!r} is no type of a policy", "application/yaml or application/json"
        )
        raise TrimtabError(Code.INVALID, "the request was refused", violations=[place])
    return media_type in _YAML
