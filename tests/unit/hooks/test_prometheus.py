"""What a mesh tells Prometheus, in the text that is scraped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from trimtab.core.serving import Arrival
from trimtab.errors import TrimtabError
from trimtab.prometheus import METRICS, MeshCollector
from trimtab.testing import FakeAsyncMesh, FakeMesh

from tests.support.missing import without_xxhash
from tests.unit.sdk.watched import watch

SERVICE = "default/orders"
Samples = dict[tuple[str, ...], float]


@pytest.fixture
def mesh() -> Iterator[FakeMesh]:
    with FakeMesh() as mesh:
        mesh.add("orders", "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
        yield mesh


@pytest.fixture
def registry(mesh: FakeMesh) -> CollectorRegistry:
    registry = CollectorRegistry()
    MeshCollector(mesh, registry=registry)
    return registry


def read(text: str) -> Samples:
    """Every sample by its name and the values of its labels in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(registry: CollectorRegistry) -> Samples:
    return read(generate_latest(registry).decode())


def call(mesh: FakeMesh, times: int = 1) -> None:
    with mesh.http_client() as http:
        for _ in range(times):
            with suppress(TrimtabError):
                http.get("mesh://orders/")


def test_calls_are_told_by_how_they_ended(mesh: FakeMesh, registry: CollectorRegistry) -> None:
    mesh.policy("orders", "default: {retry: {attempts: 2, on: ['503']}, limit: {rate: 1/h, burst: 4}}")
    mesh.respond("orders", [200, 404, 503, 200, 503])
    call(mesh, 6)
    told = scraped(registry)
    outcomes = {
        outcome: told["trimtab_client_calls_total", outcome, SERVICE] for outcome in ("success", "failure", "refused")
    }
    assert outcomes == {"success": 3, "failure": 1, "refused": 2}
    assert told["trimtab_client_attempts_total", SERVICE] == 6
    assert told["trimtab_client_refused_total", "limit", SERVICE] == 2
    assert told["trimtab_client_in_flight", SERVICE] == 0
    assert told["trimtab_client_policy_revision", SERVICE] == mesh.callee("orders").rules.revision


def test_latencies_are_a_histogram_whose_buckets_count_everything_below(
    mesh: FakeMesh, registry: CollectorRegistry
) -> None:
    for seconds in (0.001, 0.3, 0.3, 50.0):

        @mesh.guard("orders")
        def work(seconds: float = seconds) -> None:
            mesh.clock.advance(seconds)

        work()
    told = scraped(registry)
    buckets = sorted(
        (inf if key[1] == "+Inf" else float(key[1]), value)
        for key, value in told.items()
        if key[0] == "trimtab_client_call_duration_seconds_bucket"
    )
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert dict(buckets)[0.001953125] == 1
    assert (dict(buckets)[0.25], dict(buckets)[0.5]) == (1, 3)
    assert buckets[-2:] == [(32.0, 3), (inf, 4)]
    assert told["trimtab_client_call_duration_seconds_count", SERVICE] == 4
    assert told["trimtab_client_call_duration_seconds_sum", SERVICE] == pytest.approx(50.601)


def test_nobody_to_call_and_no_time_left_are_refusals_by_name(mesh: FakeMesh, registry: CollectorRegistry) -> None:
    from trimtab.calling.context import within

    with within(0.0), suppress(TrimtabError):
        mesh.pick("orders")
    mesh.remove("orders")
    with suppress(TrimtabError):
        mesh.pick("orders")
    told = scraped(registry)
    assert told["trimtab_client_refused_total", "timeout", SERVICE] == 1
    assert told["trimtab_client_refused_total", "endpoints", SERVICE] == 1


def test_endpoints_are_told_by_their_health_and_those_that_are_ejected(
    mesh: FakeMesh, registry: CollectorRegistry
) -> None:
    outlier = "{consecutive: 2, eject_for: 30s, interval: 10s, max_ejected: 50%}"
    mesh.policy("orders", f"default: {{retry: off, balance: round_robin, outlier: {outlier}}}")
    mesh.respond("orders", 200)
    mesh.respond("orders", 500, endpoint="10.0.0.2-80")
    call(mesh, 6)
    mesh.health("orders", "10.0.0.3-80", "draining")
    told = scraped(registry)
    assert told["trimtab_client_endpoints", "healthy", SERVICE] == 2
    assert told["trimtab_client_endpoints", "draining", SERVICE] == 1
    assert told["trimtab_client_endpoints_ejected", SERVICE] == 1
    assert told["trimtab_client_ejections_total", SERVICE] == 1


def test_circuits_are_counted_by_their_state(mesh: FakeMesh, registry: CollectorRegistry) -> None:
    mesh.policy("orders", "default: {retry: off, breaker: {scope: service, open_when: 2 in a row, open_for: 10s}}")
    mesh.respond("orders", 500)
    call(mesh, 3)
    told = scraped(registry)
    assert told["trimtab_client_circuits", "service", SERVICE, "open"] == 1
    assert told["trimtab_client_circuit_transitions_total", SERVICE, "open"] == 1
    assert told["trimtab_client_refused_total", "breaker", SERVICE] == 1


def test_limits_of_concurrency_are_told_by_their_place(mesh: FakeMesh, registry: CollectorRegistry) -> None:
    mesh.policy(
        "orders", "{default: {concurrency: 5}, routes: [{match: {method: Charge}, concurrency: {adaptive: vegas}}]}"
    )
    held = mesh.pick("orders")
    mesh.guard("orders", method="Charge")(lambda: None)()
    told = scraped(registry)
    assert told["trimtab_client_concurrency", f"{SERVICE} default", SERVICE] == 1
    assert told["trimtab_client_concurrency_limit", f"{SERVICE} default", SERVICE] == 5
    assert told["trimtab_client_concurrency_limit", f"{SERVICE} routes[0]", SERVICE] > 0
    held.done()
    assert scraped(registry)["trimtab_client_concurrency", f"{SERVICE} default", SERVICE] == 0


def test_fallbacks_are_counted(mesh: FakeMesh, registry: CollectorRegistry) -> None:
    mesh.policy("orders", "default: {retry: off, fallback: {value: 0}}")
    mesh.respond("orders", 503)
    call(mesh, 2)
    assert scraped(registry)["trimtab_client_fallbacks_total", SERVICE] == 2


def test_what_the_mesh_itself_knows_is_told(mesh: FakeMesh, registry: CollectorRegistry) -> None:
    mesh.callee("orders")
    mesh.publish("orders/app", {"discount": 1})
    mesh.config("orders/app")
    told = scraped(registry)
    assert told["trimtab_mesh_connected",] == 1
    assert told["trimtab_mesh_connects_total",] == 1
    assert told["trimtab_mesh_revision",] == mesh.status().revision > 0
    assert told["trimtab_mesh_config_version", "default/orders/app"] > 0
    assert told["trimtab_mesh_config_refused", "default/orders/app"] == 0
    with without_xxhash(), pytest.raises(ValueError, match="cannot be applied"):
        mesh.policy("orders", "default: {balance: {subset: 2}}")
    assert scraped(registry)["trimtab_mesh_policy_refused", SERVICE] == 1
    mesh.policy("orders", "default: {balance: {subset: 2}}")
    assert ("trimtab_mesh_policy_refused", SERVICE) not in scraped(registry)


def test_what_a_server_lets_in_and_refuses_is_told(mesh: FakeMesh, registry: CollectorRegistry) -> None:
    places = "concurrency: 1, queue: 1, wait: 1s"
    mesh.policy("orders", f"default: {{server: {{{places}, limit: {{rate: 1/h, burst: 2}}}}}}")
    gate, now = mesh.gate("orders"), time.monotonic()
    inside = gate.arrive(Arrival(method="GET"), now)
    waiting = gate.arrive(Arrival(method="GET"), now)
    for deadline in (inf, now):
        with suppress(TrimtabError):
            gate.arrive(Arrival(method="GET", deadline=deadline), now)
    mesh.policy("orders", f"default: {{server: {{{places}}}}}")
    with suppress(TrimtabError):
        gate.arrive(Arrival(method="GET"), now)
    told = scraped(registry)
    outcomes = {key[1]: value for key, value in told.items() if key[0] == "trimtab_server_calls_total"}
    assert outcomes == {"admitted": 1, "overloaded": 1, "rate_limited": 1, "deadline_exceeded": 1}
    assert told["trimtab_server_waiting", SERVICE] == 1
    assert told["trimtab_server_concurrency", f"{SERVICE} default", SERVICE] == 1
    assert told["trimtab_server_concurrency_limit", f"{SERVICE} default", SERVICE] == 1
    assert inside is not None and waiting is not None
    inside.leave(now)
    assert scraped(registry)["trimtab_server_calls_total", "admitted", SERVICE] == 2
    waiting.leave(now)


# Single endpoints


def attempts(registry: CollectorRegistry) -> dict[str, float]:
    return {k[1]: v for k, v in scraped(registry).items() if k[0] == "trimtab_client_endpoint_attempts_total"}


def test_single_endpoints_are_told_only_when_asked_for(mesh: FakeMesh, registry: CollectorRegistry) -> None:
    mesh.respond("orders", 200)
    call(mesh, 3)
    assert attempts(registry) == {}


def test_beyond_the_number_that_was_asked_for_endpoints_are_told_as_one(mesh: FakeMesh) -> None:
    registry = CollectorRegistry()
    MeshCollector(mesh, endpoints=1, registry=registry)
    mesh.policy("orders", "default: {balance: round_robin, retry: off}")
    mesh.respond("orders", 200)
    mesh.respond("orders", 500, endpoint="10.0.0.3-80")
    call(mesh, 6)
    told = attempts(registry)
    assert len(told) == 2
    assert sum(told.values()) == 6
    assert told["other"] == 4
    (single,) = told.keys() - {"other"}
    # What is reported to the control plane is not counted anew.
    for tally in mesh.callee("orders").state.tallies.values():
        tally.take()
    call(mesh, 3)
    assert attempts(registry) == {single: 3, "other": 6}


def test_what_is_told_as_one_never_shrinks_when_endpoints_come_and_go(mesh: FakeMesh) -> None:
    registry = CollectorRegistry()
    MeshCollector(mesh, endpoints=1, registry=registry)
    mesh.policy("orders", "default: {balance: round_robin}")
    mesh.respond("orders", 200)
    call(mesh, 3)
    (single,) = attempts(registry).keys() - {"other"}
    gone = next(id_ for id_ in mesh.callee("orders").state.endpoints if id_ != single)
    mesh.remove("orders", gone)
    assert attempts(registry)["other"] == 2
    mesh.add("orders", gone.replace("-", ":"))
    call(mesh, 3)
    assert attempts(registry) == {single: 2, "other": 4}
    mesh.remove("orders", single)
    assert single not in attempts(registry)


# The text, the names, the scrape


def test_every_metric_has_a_name_that_says_its_unit_and_labels_that_are_bounded() -> None:
    allowed = {"service", "outcome", "section", "health", "scope", "state", "place", "endpoint", "policy", "file"}
    for metric in METRICS:
        assert metric.name.startswith(("trimtab_client_", "trimtab_server_", "trimtab_mesh_"))
        assert metric.documentation.endswith(".")
        assert set(metric.labels) <= allowed
        assert ("endpoint" in metric.labels) == metric.documentation.endswith("Asked for.")


def test_no_endpoint_and_no_method_is_told_without_being_asked_for(mesh: FakeMesh, registry: CollectorRegistry) -> None:
    mesh.policy("orders", "default: {breaker: {scope: method, open_when: 1 in a row}, retry: off}")
    mesh.respond("orders", 500)
    call(mesh, 3)
    text = generate_latest(registry).decode()
    assert "10.0.0" not in text
    assert "GET" not in text


def test_a_mesh_is_scraped_over_http(mesh: FakeMesh, registry: CollectorRegistry) -> None:
    mesh.respond("orders", 200)
    call(mesh, 2)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            told = read(answer.read().decode())
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
    assert told["trimtab_client_calls_total", "success", SERVICE] == 2


async def test_an_async_mesh_is_told_the_same_way() -> None:
    registry = CollectorRegistry()
    async with FakeAsyncMesh() as mesh:
        mesh.add("orders", "10.0.0.1:80")
        MeshCollector(mesh, registry=registry)
        (await mesh.pick("orders")).done()
        told: Any = scraped(registry)
    assert told["trimtab_client_calls_total", "success", SERVICE] == 1


def test_a_scrape_reads_what_calls_add_to_with_their_lock(mesh: FakeMesh, registry: CollectorRegistry) -> None:
    mesh.policy("orders", "default: {breaker: 5 in a row, concurrency: 9}")
    mesh.respond("orders", 200)
    call(mesh)
    rules = watch(mesh.callee("orders"))
    assert scraped(registry)["trimtab_client_concurrency_limit", "default/orders default", SERVICE] == 9
    assert sorted(rules.seen) == ["bulkheads", "circuits", "ejected"]
    assert rules.unlocked == []
