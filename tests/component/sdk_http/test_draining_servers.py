"""Draining that drains: real servers, real sockets, a mesh server of real gRPC, and not one lost call."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from trimtab import Mesh
from trimtab.v1.types_pb2 import HEALTH_DRAINING, HEALTH_HEALTHY

from tests.component.sdk_http.fleet import Shopper, fleet, free_port, until
from tests.support.fake_mesh import FakeMesh

UVICORN = ("uvicorn", "orders_asgi:app", "--port", "PORT", "--log-level", "warning")
GTHREAD = ("gunicorn", "orders_wsgi:app", "-b", "127.0.0.1:PORT", "--no-control-socket", "--threads", "4")
SYNC = ("gunicorn", "orders_wsgi:app", "-b", "127.0.0.1:PORT", "--no-control-socket", "-w", "2")
ONE_INSTANCE = (
    *("gunicorn", "orders_asgi:app", "-b", "127.0.0.1:PORT", "--no-control-socket"),
    *("-w", "2", "-k", "uvicorn.workers.UvicornWorker", "-c", "one_instance.conf.py"),
)


@pytest.fixture
def control() -> Iterator[FakeMesh]:
    with FakeMesh() as control:
        yield control


@pytest.fixture
def mesh(control: FakeMesh) -> Iterator[Mesh]:
    with Mesh(control.address, snapshot=False) as mesh:
        yield mesh


def health(control: FakeMesh, port: int) -> list[int]:
    known = list(control.store.endpoints.get("default/orders", {}).values())
    return [endpoint.health for endpoint in known if endpoint.port == port]


def ready(control: FakeMesh, *ports: int) -> None:
    for port in ports:
        until(lambda port=port: HEALTH_HEALTHY in health(control, port), f"port {port} is ready")


def test_a_rolling_restart_under_load_loses_no_call(control: FakeMesh, mesh: Mesh, tmp_path: Path) -> None:
    with ExitStack() as fleets:
        servers = [
            fleets.enter_context(fleet(control.address, tmp_path, [free_port()], *command))[0]
            for command in (UVICORN, GTHREAD, SYNC)
        ]
        ready(control, *(server.port for server in servers))
        with Shopper(mesh) as shopper:
            shopper.goes_on()
            for server in servers:
                server.signal(signal.SIGTERM)
                server.wait()
                until(lambda port=server.port: not health(control, port), "it has left the mesh")
                server.start()
                ready(control, server.port)
                shopper.goes_on()
        assert shopper.failures == []
        assert all(shopper.served[server.port] for server in servers)


def test_a_drain_is_told_first_and_serves_what_it_has(control: FakeMesh, mesh: Mesh, tmp_path: Path) -> None:
    port = free_port()
    with fleet(control.address, tmp_path, [port], *UVICORN) as (server,):
        ready(control, port)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
            assert http.get("/readyz").status_code == 200
            server.signal(signal.SIGTERM)
            until(lambda: health(control, port) == [HEALTH_DRAINING], "it says that it drains")
            assert http.get("/readyz").status_code == 503
            answer = http.get("/v1/7?pause=1.5")
            assert answer.status_code == 200
            assert answer.json()["serving"] == 1
            assert answer.headers["connection"] == "close"
        assert server.wait() == -signal.SIGTERM
    assert health(control, port) == []


def test_ctrl_c_leaves_the_mesh_without_a_drain(control: FakeMesh, tmp_path: Path) -> None:
    port = free_port()
    with fleet(control.address, tmp_path, [port], *UVICORN) as (server,):
        ready(control, port)
        began = time.monotonic()
        server.signal(signal.SIGINT)
        server.wait()
        assert health(control, port) == []
        assert time.monotonic() - began < 5


def test_a_server_stops_although_nobody_can_be_told(control: FakeMesh, tmp_path: Path) -> None:
    port = free_port()
    with fleet(control.address, tmp_path, [port], *UVICORN) as (server,):
        ready(control, port)
        control.stop()
        server.signal(signal.SIGTERM)
        assert server.wait() == -signal.SIGTERM


def test_each_worker_of_a_prefork_server_is_an_instance_of_its_own(control: FakeMesh, tmp_path: Path) -> None:
    port = free_port()
    with fleet(control.address, tmp_path, [port], *SYNC) as (server,):
        until(lambda: health(control, port) == [HEALTH_HEALTHY] * 2, "both workers are ready")
        ids = control.store.ids("default/orders")
        assert {id_.rpartition("-w")[0] for id_ in ids} == {f"127.0.0.1-{port}"}
        server.signal(signal.SIGTTOU)
        until(lambda: len(control.store.ids("default/orders")) == 1, "one worker drained and left")
        assert control.store.ids("default/orders") < ids


def test_one_instance_of_many_workers_is_reloaded_and_drained_without_loss(
    control: FakeMesh, mesh: Mesh, tmp_path: Path
) -> None:
    ports = [free_port(), free_port()]
    with fleet(control.address, tmp_path, ports, *ONE_INSTANCE) as (rolled, other):
        ready(control, *ports)
        assert control.store.ids("default/orders") == {f"127.0.0.1-{port}" for port in ports}
        with Shopper(mesh) as shopper:
            shopper.goes_on(100)
            told, before = len(control.sent("update")), set(shopper.pids)
            rolled.signal(signal.SIGHUP)
            until(lambda: set(shopper.pids) - before, "new workers serve")
            assert len(control.sent("update")) == told
            rolled.signal(signal.SIGTERM)
            rolled.wait()
            until(lambda: not health(control, rolled.port), "it has left the mesh")
            rolled.start()
            ready(control, rolled.port)
            shopper.goes_on()
        assert shopper.failures == []

        http = mesh.http_client()
        victim = http.get("mesh://orders/v1/42").json()["pid"]
        os.kill(victim, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{victim}").exists(), "a worker died")
        until(lambda: answers(http), "its siblings serve")
        assert len(control.sent("deregister")) == 1
        assert health(control, rolled.port) == health(control, other.port) == [HEALTH_HEALTHY]

        other.signal(signal.SIGKILL)
        until(lambda: not health(control, other.port), "the instance leaves with its arbiter")


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("mesh://orders/v1/42").is_success
    except httpx.TransportError:
        return False


def test_a_development_server_drains_too(control: FakeMesh, tmp_path: Path) -> None:
    port = free_port()
    with fleet(control.address, tmp_path, [port], "orders_wsgi") as (server,):
        ready(control, port)
        server.signal(signal.SIGTERM)
        until(lambda: health(control, port) == [HEALTH_DRAINING], "it says that it drains")
        assert httpx.get(f"http://127.0.0.1:{port}/v1/7").json()["order"] == "7"
        assert server.wait() == -signal.SIGTERM
    assert health(control, port) == []


def test_a_preloading_arbiter_is_told_why_it_must_not_register(control: FakeMesh, tmp_path: Path) -> None:
    with fleet(control.address, tmp_path, [free_port()], *SYNC, "--preload") as (server,):
        assert server.wait() != 0
        assert "trimtab.servers.gunicorn" in server.log
