"""Who is connected, to which replica, and how far each has got."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from controlplane.core.view import View
from controlplane.http import models, presentation, problem
from controlplane.http.paging import ListQuery, page
from controlplane.http.watch import EVENT_STREAM, Source, Watches
from controlplane.runtime.clients import ClientInfo, Clients

# Clients come, go and acknowledge without notice: a watch looks this often, in seconds.
WATCH_INTERVAL_S = 1.0


class ClientQuery(ListQuery):
    """Which clients."""

    namespace: str = Field("", max_length=63, description="Only clients of this namespace.")


def router(view: View, clients: Clients, watches: Watches) -> APIRouter:
    """Routes below ``/v1/clients``."""
    routes = APIRouter(prefix="/v1/clients", tags=["fleet"])

    @routes.get(
        "",
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

    return routes


def _ordered(found: Sequence[ClientInfo], namespace: str) -> list[ClientInfo]:
    return sorted((info for info in found if not namespace or info.namespace == namespace), key=_key)


def _key(info: ClientInfo) -> tuple[str, ...]:
    return info.node_id, info.replica, f"{info.connected_at:020.6f}"
