"""Builds the HTTP application."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from prometheus_client import CollectorRegistry

from controlplane import __version__
from controlplane.core.view import View
from controlplane.http import catalogue, configs, fleet, policies, probes, problem
from controlplane.http.gate import Gate
from controlplane.http.watch import Watches
from controlplane.runtime.clients import Clients
from controlplane.runtime.operations import Operations
from controlplane.runtime.readiness import Readiness
from controlplane.runtime.reconciler import Reconciler

_ABOUT = """
Reads show this replica's view; a write answers once this replica shows it. Operators' intent is kept apart from what an
instance reports. Every refusal is a problem (RFC 9457) with a stable `code`, the same over gRPC.
"""


def build_http(
    *,
    view: View,
    operations: Operations,
    clients: Clients,
    readiness: Readiness,
    reconciler: Reconciler,
    registry: CollectorRegistry,
    stopping: asyncio.Event,
    token: str | None = None,
) -> FastAPI:
    """The admin API, probes and metrics as one ASGI application.

    ``token``: bearer token that everything under ``/v1`` asks for; None asks for none. ``stopping`` ends open watches: set
    it before the server is told to stop, which waits for its connections.
    """
    # The documentation pages of FastAPI load scripts from elsewhere; the document itself is enough.
    app = FastAPI(
        title="Trimtab",
        version=__version__,
        description=_ABOUT,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    watches = Watches(reconciler, stopping)
    routers = [
        probes.router(readiness, registry),
        catalogue.router(view, operations, watches),
        configs.router(view, operations, watches),
        policies.router(view, operations, clients, watches),
        fleet.router(view, clients, watches),
    ]
    for router in routers:
        app.include_router(router)
    app.add_middleware(Gate, token=token, started=lambda: readiness.started)
    problem.install(app, routers)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """OpenAPI with the one shape of refusals and the token, which the gate checks rather than the routes."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = document.setdefault("components", {})
        template = "#/components/schemas/{model}"
        schema = problem.Problem.model_json_schema(ref_template=template)
        components["schemas"] |= schema.pop("$defs") | {"Problem": schema}
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [{"token": []}, {}] if path.startswith("/v1/") else []
        app.openapi_schema = document
    return app.openapi_schema
