"""What a client shows of its calls while a real mesh changes under it: scraped over HTTP, and as spans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from trimtab import Mesh
from trimtab.errors import CircuitOpen
from trimtab.hooks import CircuitChanged, EndpointsChanged, PolicyApplied
from trimtab.prometheus import MeshCollector

from tests.e2e.test_calls_under_policies import applied
from tests.support.town.plugin import Build
from tests.support.town.town import Town
from tests.unit.hooks.heard import Heard
from tests.unit.hooks.spans import Spans, said, traceparent
from tests.unit.hooks.test_prometheus import Samples, read
from tests.unit.sdk_http.known_mesh import origin

ORDERS = "default/orders"


@pytest.fixture(scope="module")
def town(towns: Build) -> Town:
    town = towns()
    town.add_replicas(1)
    return town


@pytest.fixture(scope="module")
def instance(town: Town) -> Iterator[int]:
    with origin() as port, Mesh(town.servers, snapshot=False, load=lambda: (0.0, 0.0)) as mesh:
        mesh.register("orders", port, address="127.0.0.1")
        yield port


@pytest.fixture
def scrape() -> Iterator[tuple[CollectorRegistry, Callable[[], Samples]]]:
    """A registry behind a real port, and what is scraped there."""
    registry = CollectorRegistry()
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)

    def scraped() -> Samples:
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            return read(answer.read().decode())

    try:
        yield registry, scraped
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_calls_a_live_policy_and_an_open_circuit_are_seen(
    town: Town, instance: int, tmp_path: Path, scrape: tuple[CollectorRegistry, Callable[[], Samples]]
) -> None:
    registry, scraped = scrape
    heard, spans = Heard(), Spans()
    with Mesh(town.servers, snapshot=False, load=lambda: (0.0, 0.0), hooks=[heard, spans.tracing]) as mesh:
        MeshCollector(mesh, registry=registry)
        with mesh.http_client() as http:
            answer = http.get("mesh://orders/v1/42")
            assert answer.json()["headers"]["traceparent"] == traceparent(spans.attempts[0])
            revision = applied(
                town, tmp_path, "{retry: off, breaker: {scope: service, open_when: 2 in a row, open_for: 60s}}"
            )
            for _ in range(2):
                assert http.get("mesh://orders/fail").status_code == 503
            with pytest.raises(CircuitOpen):
                http.get("mesh://orders/")
        told = scraped()
        assert told["trimtab_client_calls_total", "success", ORDERS] == 1
        assert told["trimtab_client_calls_total", "failure", ORDERS] == 2
        assert told["trimtab_client_refused_total", "breaker", ORDERS] == 1
        assert told["trimtab_client_circuits", "service", ORDERS, "open"] == 1
        assert told["trimtab_client_endpoints", "healthy", ORDERS] == 1
        assert told["trimtab_client_policy_revision", ORDERS] == revision
        assert told["trimtab_mesh_connected",] == 1
        assert said(spans.ended[-1])["trimtab.refused"] == "breaker"
        assert said(spans.ended[-1])["trimtab.policy.revision"] == revision
        until(lambda: bool(heard.told(CircuitChanged)))
        assert heard.told(CircuitChanged)[-1].after == "open"
        assert PolicyApplied(ORDERS, revision) in heard.told(PolicyApplied)
        assert len(heard.told(EndpointsChanged)[-1].state.endpoints) == 1
    applied(town, tmp_path, "{timeout: 2s}")


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread tells."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it was never told"
        time.sleep(0.01)
