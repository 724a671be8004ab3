"""Who is connected, to which replica, how far each has got, and how its calls fare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from controlplane.core.view import View
from controlplane.http import models, presentation, problem
from controlplane.http.paging import ListQuery, page
from controlplane.http.watch import EVENT_STREAM, Source, Watches
from controlplane.runtime.clients import ClientInfo, Clients
from controlplane.runtime.reported import ReportFilter

# Clients come, go and acknowledge without notice: a watch looks this often, in seconds.
WATCH_INTERVAL_S = 1.0
# Calls are reported every five seconds, and there is more to look at.
TRAFFIC_INTERVAL_S = 2.0


class ClientQuery(ListQuery):
    """Which clients."""

    namespace: str = Field("", max_length=63, description="Only clients of this namespace.")


class ReportQuery(ListQuery):
    """Which calls, of those that clients report of."""

    namespace: str = Field("", max_length=63, description="Only towards services of this namespace.")
    service: str = Field("", max_length=63, description="Only towards this service.")
    caller: str = Field("", max_length=256, description="Only of clients with this program name.")

    @property
    def wanted(self) -> ReportFilter:
        """The same, as those who gather it take it."""
        return ReportFilter(self.caller, self.namespace, self.service)


class TrafficQuery(ReportQuery):
    """Which calls, and how they are told."""

    by: Literal["endpoint", "caller"] = Field(
        "endpoint", description="One entry for each endpoint, or for each client and endpoint."
    )


def router(view: View, clients: Clients, watches: Watches) -> APIRouter:
    """``/v1/clients``, ``/v1/breakers`` and ``/v1/traffic``."""
    routes = APIRouter(prefix="/v1", tags=["fleet"])
    _clients(routes, view, clients, watches)
    _breakers(routes, view, clients, watches)
    _traffic(routes, view, clients, watches)
    return routes


def _clients(routes: APIRouter, view: View, clients: Clients, watches: Watches) -> None:
    @routes.get(
        "/clients",
        operation_id="listClients",
        response_model=models.ClientListing,
        responses=problem.documented() | EVENT_STREAM,
    )
    async def list_clients(query: Annotated[ClientQuery, Query()]) -> Any:
        """Connected clients of all replicas: in step, behind, or refusing something, and why."""
        query.refuse_paged_watch()

        async def now() -> tuple[int, Sequence[models.Client]]:
            found, _ = await clients.all()
            return view.revision, [presentation.client(info) for info in _ordered(found, query.namespace)]

        if query.watch:
            return watches.stream(Source(now, every=WATCH_INTERVAL_S))
        found, unreachable = await clients.all()
        shown, token = page(_ordered(found, query.namespace), _key, query, of=f"clients/{query.namespace}")
        items = [presentation.client(info) for info in shown]
        return models.ClientListing(items=items, next_page_token=token, revision=view.revision, unreachable=unreachable)


def _breakers(routes: APIRouter, view: View, clients: Clients, watches: Watches) -> None:
    @routes.get(
        "/breakers",
        operation_id="listBreakers",
        response_model=models.BreakerListing,
        responses=problem.documented() | EVENT_STREAM,
    )
    async def list_breakers(query: Annotated[ReportQuery, Query()]) -> Any:
        """Circuit breakers as clients reported them last, of all replicas: who holds back from whom, and why."""
        query.refuse_paged_watch()
        wanted = query.wanted

        async def now() -> tuple[int, Sequence[models.Breaker]]:
            found, _, _ = await clients.breakers(wanted)
            return view.revision, [presentation.breaker(info) for info in found]

        if query.watch:
            return watches.stream(Source(now, every=WATCH_INTERVAL_S))
        found, omitted, unreachable = await clients.breakers(wanted)
        listing = f"breakers/{wanted.namespace}/{wanted.service}/{wanted.caller}"
        shown, token = page(found, lambda info: tuple(map(str, info.rank)), query, of=listing)
        return models.BreakerListing(
            items=[presentation.breaker(info) for info in shown],
            next_page_token=token,
            revision=view.revision,
            omitted=omitted,
            unreachable=unreachable,
        )


def _traffic(routes: APIRouter, view: View, clients: Clients, watches: Watches) -> None:
    @routes.get(
        "/traffic",
        operation_id="listTraffic",
        response_model=models.TrafficListing,
        responses=problem.documented() | EVENT_STREAM,
    )
    async def list_traffic(query: Annotated[TrafficQuery, Query()]) -> Any:
        """Calls to endpoints as clients of all replicas reported them last: how many, how they fared, who ejected whom."""
        query.refuse_paged_watch()
        wanted, by_caller = query.wanted, query.by == "caller"

        async def now() -> tuple[int, Sequence[models.Traffic]]:
            found, _, _ = await clients.traffic(wanted, by_caller)
            return view.revision, [presentation.traffic(one) for one in found]

        if query.watch:
            return watches.stream(Source(now, every=TRAFFIC_INTERVAL_S))
        found, omitted, unreachable = await clients.traffic(wanted, by_caller)
        listing = f"traffic/{wanted.namespace}/{wanted.service}/{wanted.caller}/{query.by}"
        shown, token = page(found, lambda one: one.place, query, of=listing)
        return models.TrafficListing(
            items=[presentation.traffic(one) for one in shown],
            next_page_token=token,
            revision=view.revision,
            omitted=omitted,
            unreachable=unreachable,
        )


def _ordered(found: Sequence[ClientInfo], namespace: str) -> list[ClientInfo]:
    return sorted((info for info in found if not namespace or info.namespace == namespace), key=_key)


def _key(info: ClientInfo) -> tuple[str, ...]:
    return info.node_id, info.replica, f"{info.connected_at:020.6f}"
