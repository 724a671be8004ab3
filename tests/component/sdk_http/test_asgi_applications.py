"""Applications that a test client serves in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from trimtab import Mesh
from trimtab.servers.fastapi import MeshServer
from trimtab.v1.types_pb2 import HEALTH_UNHEALTHY

from tests.component.sdk_http.fleet import free_port, until
from tests.support.fake_mesh import FakeMesh


@pytest.fixture
def control() -> Iterator[FakeMesh]:
    with FakeMesh() as control:
        yield control


@pytest.fixture
def mesh(control: FakeMesh) -> Iterator[Mesh]:
    with Mesh(control.address, snapshot=False) as mesh:
        yield mesh


def known(control: FakeMesh) -> list[Any]:
    return list(control.store.endpoints.get("default/orders", {}).values())


def test_a_starlette_application_keeps_its_own_lifespan_and_counts_its_calls(control: FakeMesh, mesh: Mesh) -> None:
    @asynccontextmanager
    async def with_database(app: Starlette) -> AsyncIterator[dict[str, str]]:
        yield {"database": "open"}

    async def show(request: Request) -> JSONResponse:
        return JSONResponse({"database": request.state.database, "serving": int(mesh.serving)})

    port = free_port()
    app = Starlette(
        routes=[Route("/", show)], lifespan=mesh.fastapi("orders", port=port, id="blue", lifespan=with_database)
    )
    app.add_middleware(MeshServer)
    with TestClient(app) as http:
        # Nobody listens on the port, so it is registered and never ready.
        until(lambda: [(e.id, e.health) for e in known(control)] == [("blue", HEALTH_UNHEALTHY)], "it is starting")
        assert http.get("/").json() == {"database": "open", "serving": 1}
    assert int(mesh.serving) == 0
    assert known(control) == []


def test_an_application_that_is_registered_from_outside_does_not_register_itself(
    control: FakeMesh, mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_REGISTERED_BY", "run")
    app = Starlette(lifespan=mesh.fastapi("orders", port=free_port()))
    with TestClient(app):
        mesh.register("witness", 1, address="127.0.0.1")
    assert known(control) == []


def test_a_drain_that_is_no_duration_is_refused_where_it_is_written(mesh: Mesh) -> None:
    with pytest.raises(ValueError, match="'soon' is no duration"):
        mesh.fastapi("orders", port=8000, drain="soon")
