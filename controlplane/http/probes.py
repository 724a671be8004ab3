"""What orchestrators and Prometheus ask, without a token."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Depends, Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from controlplane.errors import Code, TrimtabError, Violation
from controlplane.http import problem
from controlplane.http.models import Probe
from controlplane.http.paging import no_query
from controlplane.runtime.readiness import Readiness

SCRAPE_DEADLINE_S = 10.0


def router(readiness: Readiness, registry: CollectorRegistry) -> APIRouter:
    """Probe and metrics routes. The registry's collectors run in a thread, and must bear that."""
    routes = APIRouter(tags=["probes"])

    @routes.get("/livez", operation_id="livez", dependencies=[Depends(no_query)], responses=problem.documented())
    async def livez() -> Probe:
        """This process answers. Asks nobody else, so that an outage of etcd restarts nothing."""
        return Probe()

    @routes.get("/readyz", operation_id="readyz", dependencies=[Depends(no_query)], responses=problem.documented())
    async def readyz() -> Probe:
        """This replica should be sent new clients."""
        return _held(readiness.ready, readiness, "not ready")

    @routes.get("/startupz", operation_id="startupz", dependencies=[Depends(no_query)], responses=problem.documented())
    async def startupz() -> Probe:
        """This replica has loaded its view."""
        return _held(readiness.started, readiness, "still starting")

    @routes.get(
        "/metrics",
        operation_id="metrics",
        response_class=Response,
        responses={200: {"description": "Prometheus or OpenMetrics text.", "content": {"text/plain": {}}}},
    )
    async def metrics(request: Request) -> Response:
        """Metrics of this process, for Prometheus."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        async with asyncio.timeout(SCRAPE_DEADLINE_S):
            text = await asyncio.to_thread(encode, registry)
        return Response(text, headers={"Content-Type": media_type})

    return routes


def _held(holds: bool, readiness: Readiness, otherwise: str) -> Probe:
    if not holds:
        reasons = [Violation("replica", reason) for reason in readiness.reasons]
        raise TrimtabError(Code.NOT_READY, f"this replica is {otherwise}", violations=reasons)
    return Probe()
