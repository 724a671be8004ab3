"""Who is connected, to which replica, how far each has got, and how its calls fare."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import APIRouter, Query
from pydantic import Field

from controlplane.core.view import View
from controlplane.http import models, presentation, problem
from controlplane.http.paging import ListQuery, page
from controlplane.http.watch import EVENT_STREAM, Source, Watches
from controlplane.runtime.clients import ClientInfo, Clients
from controlplane.runtime.reported import ReportFilter

T = TypeVar("T")

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

    @property
    def asked(self) -> tuple[str, ...]:
        """The same, as a page token remembers it."""
        return self.namespace, self.service, self.caller


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
        reported = _Reported(
            find=lambda: clients.breakers(query.wanted),
            show=presentation.breaker,
            key=lambda info: tuple(map(str, info.rank)),
            of="/".join(("breakers", *query.asked)),
            every=WATCH_INTERVAL_S,
        )
        return await reported.answer(query, view, watches, models.BreakerListing)


def _traffic(routes: APIRouter, view: View, clients: Clients, watches: Watches) -> None:
    @routes.get(
        "/traffic",
        operation_id="listTraffic",
        response_model=models.TrafficListing,
        responses=problem.documented() | EVENT_STREAM,
    )
    async def list_traffic(query: Annotated[TrafficQuery, Query()]) -> Any:
        """Calls to endpoints as clients of all replicas reported them last: how many, how they fared, who ejected whom."""
        reported = _Reported(
            find=lambda: clients.traffic(query.wanted, query.by == "caller"),
            show=presentation.traffic,
            key=lambda one: one.place,
            of="/".join(("traffic", *query.asked, query.by)),
            every=TRAFFIC_INTERVAL_S,
        )
        return await reported.answer(query, view, watches, models.TrafficListing)


@dataclass(frozen=True, slots=True)
class _Reported(Generic[T]):
    """Something that clients report.

    ``find`` returns it, worst first, how much more there is, and who did not answer. ``of`` and ``key`` are for page tokens,
    ``every``, in seconds, for watches.
    """

    find: Callable[[], Awaitable[tuple[list[T], int, list[str]]]]
    show: Callable[[T], Any]
    key: Callable[[T], tuple[str, ...]]
    of: str
    every: float

    async def answer(self, query: ListQuery, view: View, watches: Watches, listing: Callable[..., Any]) -> Any:
        """A page of it as a ``listing``, or a watch on all of it."""
        query.refuse_paged_watch()
        if query.watch:
            return watches.stream(Source(lambda: self._now(view), every=self.every))
        found, omitted, unreachable = await self.find()
        shown, token = page(found, self.key, query, of=self.of)
        return listing(
            items=list(map(self.show, shown)),
            next_page_token=token,
            revision=view.revision,
            omitted=omitted,
            unreachable=unreachable,
        )

    async def _now(self, view: View) -> tuple[int, Sequence[Any]]:
        found, _, _ = await self.find()
        return view.revision, list(map(self.show, found))


def _ordered(found: Sequence[ClientInfo], namespace: str) -> list[ClientInfo]:
    return sorted((info for info in found if not namespace or info.namespace == namespace), key=_key)


def _key(info: ClientInfo) -> tuple[str, ...]:
    return info.node_id, info.replica, f"{info.connected_at:020.6f}"
