"""Namespaces, services and instances: what is there, and what an operator wants of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from controlplane.core.model import ServiceName
from controlplane.core.resource import EndpointSet
from controlplane.core.view import Listed, View
from controlplane.errors import Code, TrimtabError
from controlplane.http import etag, models, presentation, problem
from controlplane.http.actor import Actor
from controlplane.http.names import InstanceId, Namespace, Service
from controlplane.http.paging import ListQuery, PageQuery, WatchQuery, no_query, page
from controlplane.http.watch import ENDPOINTS, EVENT_STREAM, Source, Watches
from controlplane.runtime.operations import Operations

_WRITE = problem.documented(Code.INSTANCE_NOT_FOUND, Code.CONFLICT, Code.STORE_UNAVAILABLE, Code.STORE_TIMEOUT)


def router(view: View, operations: Operations, watches: Watches) -> APIRouter:
    """Routes below ``/v1/namespaces``, without those of configurations."""
    routes = APIRouter(prefix="/v1/namespaces", tags=["catalogue"])
    _namespaces(routes, view)
    _services(routes, view, watches)
    _instances(routes, view, watches)
    _intent(routes, view, operations)
    return routes


def _namespaces(routes: APIRouter, view: View) -> None:
    @routes.get(
        "",
        operation_id="listNamespaces",
        response_model=models.Listing[models.Namespace],
        responses=problem.documented(),
    )
    async def list_namespaces(query: Annotated[PageQuery, Query()]) -> Any:
        """Namespaces in which something is registered or configured."""
        shown, token = page(view.namespaces(), lambda name: (name,), query, of="namespaces")
        items = [presentation.namespace(view, name) for name in shown]
        return models.Listing[models.Namespace](items=items, next_page_token=token, revision=view.revision)


def _services(routes: APIRouter, view: View, watches: Watches) -> None:
    def read(namespace: str) -> list[models.Service]:
        return [presentation.service(name, _endpoints(view, name)) for name in view.services(namespace)]

    @routes.get(
        "/{namespace}/services",
        operation_id="listServices",
        response_model=models.Listing[models.Service],
        responses=problem.documented() | EVENT_STREAM,
    )
    async def list_services(namespace: Namespace, query: Annotated[ListQuery, Query()]) -> Any:
        """Services that have an instance, and how their instances fare."""
        query.refuse_paged_watch()
        if query.watch:
            return watches.stream(Source.of(view, lambda: read(namespace), ENDPOINTS, namespace))
        names, token = page(view.services(namespace), tuple, query, of=f"{namespace}/services")
        items = [presentation.service(name, _endpoints(view, name)) for name in names]
        return models.Listing[models.Service](items=items, next_page_token=token, revision=view.revision)

    @routes.get(
        "/{namespace}/services/{service}",
        operation_id="getService",
        response_model=models.Service,
        responses=problem.documented(Code.NOT_FOUND) | EVENT_STREAM | etag.NOT_MODIFIED,
    )
    async def get_service(
        namespace: Namespace,
        service: Service,
        query: Annotated[WatchQuery, Query()],
        request: Request,
        response: Response,
    ) -> Any:
        """One service and how its instances fare."""
        name = ServiceName(namespace, service)

        def now() -> list[models.Service]:
            return [presentation.service(name, _endpoints(view, name))] if name in view.services(namespace) else []

        if query.watch:
            return watches.stream(Source.of(view, now, ENDPOINTS, *name))
        found = now()
        if not found:
            hint = f"`trimtab get services -n {namespace}` lists those that there are"
            raise TrimtabError(Code.NOT_FOUND, f"no instance of {name} is registered", hint=hint)
        return etag.answer(found[0], etag.strong(found[0].revision), request, response)


def _instances(routes: APIRouter, view: View, watches: Watches) -> None:
    @routes.get(
        "/{namespace}/instances",
        operation_id="listNamespaceInstances",
        response_model=models.Listing[models.Instance],
        responses=problem.documented() | EVENT_STREAM,
    )
    async def list_namespace_instances(namespace: Namespace, query: Annotated[ListQuery, Query()]) -> Any:
        """Instances of every service of a namespace."""

        def listed() -> list[Listed]:
            return [one for name in view.services(namespace) for one in view.instances(name)]

        return _listing(view, watches, query, listed, ENDPOINTS, namespace)

    @routes.get(
        "/{namespace}/services/{service}/instances",
        operation_id="listInstances",
        response_model=models.Listing[models.Instance],
        responses=problem.documented() | EVENT_STREAM,
    )
    async def list_instances(namespace: Namespace, service: Service, query: Annotated[ListQuery, Query()]) -> Any:
        """A service's instances: as reported, as desired, as clients are told. None is an empty listing."""
        name = ServiceName(namespace, service)
        return _listing(view, watches, query, lambda: view.instances(name), ENDPOINTS, *name)

    @routes.get(
        "/{namespace}/services/{service}/instances/{id}",
        operation_id="getInstance",
        response_model=models.Instance,
        responses=problem.documented(Code.INSTANCE_NOT_FOUND) | EVENT_STREAM | etag.NOT_MODIFIED,
    )
    async def get_instance(
        namespace: Namespace,
        service: Service,
        id: InstanceId,
        query: Annotated[WatchQuery, Query()],
        request: Request,
        response: Response,
    ) -> Any:
        """One instance: as reported, as desired, as clients are told, and why."""
        name = ServiceName(namespace, service)
        if query.watch:
            return watches.stream(Source.of(view, lambda: _shown(view, name, id), ENDPOINTS, *name))
        found = view.instance(name, id)
        if found is None:
            hint = f"`trimtab get instances {service} -n {namespace}` lists those that there are"
            raise TrimtabError(Code.INSTANCE_NOT_FOUND, f"{name} has no instance {id!r}", hint=hint)
        return etag.answer(presentation.instance(found), presentation.instance_tag(found), request, response)


def _intent(routes: APIRouter, view: View, operations: Operations) -> None:
    base = "/{namespace}/services/{service}/instances/{id}"
    plain: dict[str, Any] = {
        "dependencies": [Depends(no_query), Depends(_no_precondition)],
        "response_model": models.Intent,
        "responses": _WRITE,
    }

    def outcome(name: ServiceName, id: str, revision: int) -> models.Intent:
        return models.Intent(revision=revision, instance=next(iter(_shown(view, name, id)), None))

    @routes.post(base + ":drain", operation_id="drainInstance", **plain)
    async def drain(namespace: Namespace, service: Service, id: InstanceId, actor: Actor) -> Any:
        """Take an instance out of traffic. It survives the instance's restarts, until it is undrained."""
        revision = await operations.drain(namespace, service, id, drain=True, by=actor)
        return outcome(ServiceName(namespace, service), id, revision)

    @routes.post(base + ":undrain", operation_id="undrainInstance", **plain)
    async def undrain(namespace: Namespace, service: Service, id: InstanceId, actor: Actor) -> Any:
        """Lift an operator's drain."""
        revision = await operations.drain(namespace, service, id, drain=False, by=actor)
        return outcome(ServiceName(namespace, service), id, revision)

    @routes.put(base + "/weight", operation_id="setInstanceWeight", **plain)
    async def set_weight(
        namespace: Namespace, service: Service, id: InstanceId, body: models.WeightWanted, actor: Actor
    ) -> Any:
        """Override the weight that an instance reports. It survives the instance's restarts."""
        revision = await operations.set_weight(namespace, service, id, weight=body.weight, by=actor)
        return outcome(ServiceName(namespace, service), id, revision)

    @routes.delete(base + "/weight", operation_id="resetInstanceWeight", **plain)
    async def reset_weight(namespace: Namespace, service: Service, id: InstanceId, actor: Actor) -> Any:
        """Leave the weight to the instance again."""
        revision = await operations.set_weight(namespace, service, id, weight=None, by=actor)
        return outcome(ServiceName(namespace, service), id, revision)


def _listing(view: View, watches: Watches, query: ListQuery, listed: Callable[[], list[Listed]], *topic: str) -> Any:
    query.refuse_paged_watch()
    if query.watch:
        return watches.stream(Source.of(view, lambda: [presentation.instance(one) for one in listed()], *topic))
    shown, token = page(listed(), lambda one: one.stored.ref.path, query, of="/".join(topic))
    items = [presentation.instance(one) for one in shown]
    return models.Listing[models.Instance](items=items, next_page_token=token, revision=view.revision)


def _shown(view: View, name: ServiceName, id: str) -> list[models.Instance]:
    found = view.instance(name, id)
    return [] if found is None else [presentation.instance(found)]


def _endpoints(view: View, name: ServiceName) -> EndpointSet:
    found = view.endpoints(str(name))
    assert found is not None, f"{name} is listed without endpoints"
    return found


async def _no_precondition(request: Request) -> None:
    etag.refuse(request.headers)
