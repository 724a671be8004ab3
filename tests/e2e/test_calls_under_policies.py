"""Calls of the SDK under policies that an operator applies while they are made: real etcd, replicas and instances."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from trimtab import Mesh
from trimtab.errors import CircuitOpen, RateLimited

from tests.support.town.plugin import Build
from tests.support.town.town import Town
from tests.unit.sdk_http.known_mesh import origin
from tests.unit.sdk_http.neighbours import serving

POLICY = """\
apiVersion: trimtab/v1
kind: ServicePolicy
metadata: {{name: orders, namespace: default}}
spec:
  default: {default}
"""


@pytest.fixture(scope="module")
def town(towns: Build) -> Town:
    town = towns()
    town.add_replicas(2)
    return town


@pytest.fixture(scope="module")
def instance(town: Town) -> Iterator[int]:
    """An instance of orders behind real HTTP; the path says how it answers."""
    with (
        origin() as port,
        Mesh(town.servers, snapshot=False, load=lambda: (0.0, 0.0)) as mesh,
    ):
        mesh.register("orders", port, address="127.0.0.1")
        yield port


def shopper(town: Town, replica: int = 0) -> Mesh:
    """A caller at one of the replicas."""
    return Mesh(town.replicas[replica].address, name="shopper", snapshot=False, load=lambda: (0.0, 0.0))


def applied(town: Town, directory: Path, default: str) -> int:
    """Apply a policy by the command; its revision, once every follower has it."""
    file = directory / "orders.yaml"
    file.write_text(POLICY.format(default=default))
    program = town.trimtab("apply", "--wait", "-f", str(file))
    assert program.popen.wait(60) == 0, program.tail()
    revisions = [int(word) for word in program.log.read_text().split() if word.isdigit()]
    return next(number for number in revisions if number > 0)


def test_an_applied_limit_holds_for_the_next_call_at_either_replica(town: Town, instance: int, tmp_path: Path) -> None:
    with shopper(town, 0) as first, shopper(town, 1) as second:
        for mesh in (first, second):
            # Registered at one replica a moment ago: the other one has it as soon as its watch does.
            mesh.wait_ready("orders", timeout=10)
            with mesh.http_client() as http:
                assert http.get("mesh://orders/").extensions["trimtab"].policy == 0
        applied(town, tmp_path, "{limit: {rate: 1/h}}")
        for mesh in (first, second):
            with mesh.http_client() as http:
                assert http.get("mesh://orders/").extensions["trimtab"].policy > 0
                with pytest.raises(RateLimited) as caught:
                    http.get("mesh://orders/")
                assert 3500 < caught.value.retry_after <= 3600
        applied(town, tmp_path, "{timeout: 2s}")
        with first.http_client() as http:
            assert http.get("mesh://orders/").extensions["trimtab"].refused == ""


def test_an_open_circuit_is_seen_by_the_operator_and_closes_again(town: Town, instance: int, tmp_path: Path) -> None:
    with shopper(town) as mesh, mesh.http_client() as http:
        http.get("mesh://orders/")
        applied(
            town, tmp_path, "{breaker: {scope: service, open_when: 3 in a row, open_for: 1s, probes: 1}, retry: off}"
        )
        for _ in range(3):
            assert http.get("mesh://orders/fail").status_code == 503
        with pytest.raises(CircuitOpen):
            http.get("mesh://orders/")
        assert states(town) == ["OPEN"]
        time.sleep(1.0)
        assert http.get("mesh://orders/").status_code == 200
        until_states(town, [])


def test_operators_see_how_calls_fare_at_each_endpoint_and_who_ejected_one(
    town: Town, instance: int, tmp_path: Path
) -> None:
    with (
        origin() as second,
        Mesh(town.servers, snapshot=False, load=lambda: (0.0, 0.0)) as other,
        shopper(town, 0) as one,
        shopper(town, 1) as two,
    ):
        other.register("orders", second, address="127.0.0.1", id="second")
        for mesh in (one, two):
            mesh.callee("orders").when(lambda callee: len(callee.state.healthy) == 2).result(10)
        applied(town, tmp_path, "{balance: round_robin, retry: off, outlier: {consecutive: 2, max_ejected: 50%}}")
        with one.http_client() as http, two.http_client() as too:
            for client in (http, too):
                for _ in range(20):
                    assert client.get("mesh://orders/").status_code == 200
            answers = [too.get(f"mesh://orders/{path}") for path in ("fail", "", "fail")]
            ejected, _, again = (answer.extensions["trimtab"].endpoint.id for answer in answers)
            assert again == ejected
        told = until_traffic(town, lambda items: len(items) == 2 and all(item["callers"] == 2 for item in items))
        for id_, item in told.items():
            assert item["calls_per_second"] > 0
            assert 0 < item["latency_mean"] < 1
            assert item["ejected_by"] == (["shopper"] if id_ == ejected else [])
        # Nobody calls any more: only what is ejected is left to tell of.
        until_traffic(town, lambda items: [item["calls_per_second"] for item in items] == [0.0])
    until_traffic(town, lambda items: not items)
    applied(town, tmp_path, "{timeout: 2s}")


def test_who_was_ejected_is_called_again_when_the_other_fails_too_and_stays(
    town: Town, instance: int, tmp_path: Path
) -> None:
    with (
        origin() as second,
        Mesh(town.servers, snapshot=False, load=lambda: (0.0, 0.0)) as other,
        shopper(town) as mesh,
    ):
        other.register("orders", second, address="127.0.0.1", id="second")
        callee = mesh.callee("orders")
        callee.when(lambda callee: len(callee.state.healthy) == 2).result(10)
        applied(town, tmp_path, "{balance: round_robin, retry: off, outlier: {consecutive: 2, max_ejected: 50%}}")

        def ejected_when_failing(*endpoints: str) -> frozenset[str]:
            for _ in range(4):
                pick = mesh.pick("orders")
                pick.done(pick.endpoint.id not in endpoints)
            return frozenset(callee.rules.ejected)

        assert ejected_when_failing("second") == {"second"}
        assert ejected_when_failing(*callee.state.endpoints) == set()
        assert ejected_when_failing("second") == set()
    applied(town, tmp_path, "{timeout: 2s}")


def until_traffic(town: Town, wanted: Callable[[list[dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
    """What operators are told of calls to orders by endpoint, once it is what is wanted."""
    deadline = time.monotonic() + 20
    while True:
        items = town.replicas[0].items("/v1/traffic?service=orders")
        if wanted(items):
            return {item["endpoint"]: item for item in items}
        assert time.monotonic() < deadline, f"still {items}"
        time.sleep(0.1)


def states(town: Town) -> list[str]:
    """The states of the breakers that are not closed, as operators are told, as soon as they are told of any."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = breakers(town)
        if found:
            return found
        time.sleep(0.05)
    return []


def until_states(town: Town, wanted: list[str]) -> None:
    deadline = time.monotonic() + 10
    while breakers(town) != wanted:
        assert time.monotonic() < deadline, f"still {breakers(town)}"
        time.sleep(0.05)


def breakers(town: Town) -> list[str]:
    program = town.trimtab("get", "breakers", "-o", "json")
    assert program.popen.wait(60) == 0, program.tail()
    items: list[dict[str, Any]] = json.loads(program.log.read_text())["items"]
    return [item["state"] for item in items if item["state"] != "CLOSED"]


def test_an_answer_that_was_good_stands_in_while_the_service_fails(town: Town, instance: int, tmp_path: Path) -> None:
    with shopper(town) as mesh, mesh.http_client() as http:
        http.get("mesh://orders/")
        applied(town, tmp_path, "{fallback: {cache: 60s}}")
        good = http.get("mesh://orders/v1").json()
        applied(town, tmp_path, "{fallback: {cache: 60s}, retry: off, fault: {abort: 503}}")
        answer = http.get("mesh://orders/v1")
        assert answer.json() == good
        assert answer.extensions["trimtab"].fallback == "cache"
        assert int(answer.headers["age"]) == int(answer.extensions["trimtab"].age)
        applied(town, tmp_path, "{timeout: 2s}")


def test_a_copy_overtakes_an_instance_that_hangs_as_soon_as_hedging_is_applied(
    town: Town, instance: int, tmp_path: Path
) -> None:
    with (
        serving("slow") as slow,
        Mesh(town.servers, snapshot=False, load=lambda: (0.0, 0.0)) as other,
        shopper(town) as mesh,
        mesh.http_client() as http,
    ):
        slow.hanging = True
        hung = other.register("orders", slow.port, address="127.0.0.1", weight=1000)
        mesh.wait_ready("orders")
        applied(town, tmp_path, "{hedge: 20ms, balance: round_robin}")
        while not slow.came.is_set():
            answer = http.get("mesh://orders/")
            assert answer.status_code == 200
        attempts = answer.extensions["trimtab"].attempts
        assert [(attempt.endpoint.port, attempt.error) for attempt in attempts] == [
            (slow.port, "cancelled"),
            (instance, ""),
        ]
        slow.going_on.set()
        hung.deregister()
        applied(town, tmp_path, "{timeout: 2s}")


def test_calls_are_copied_to_another_service_as_soon_as_mirroring_is_applied(
    town: Town, instance: int, tmp_path: Path
) -> None:
    with (
        serving("shadow") as shadow,
        Mesh(town.servers, snapshot=False, load=lambda: (0.0, 0.0)) as other,
        shopper(town) as mesh,
        mesh.http_client() as http,
    ):
        other.register("shadow", shadow.port, address="127.0.0.1")
        http.get("mesh://orders/")
        assert not shadow.seen
        applied(town, tmp_path, "{mirror: shadow}")
        assert http.get("mesh://orders/v1").json()["path"] == "/v1"
        assert shadow.came.wait(10)
        assert [(seen[1], seen[2]["trimtab-mirrored"]) for seen in shadow.seen] == [("/v1", "1")]
        applied(town, tmp_path, "{timeout: 2s}")


def test_policies_change_under_load_without_a_failed_call(town: Town, instance: int, tmp_path: Path) -> None:
    with shopper(town) as mesh, mesh.http_client() as http:
        failures: list[Exception] = []
        stop = threading.Event()

        def keep_calling() -> None:
            while not stop.is_set():
                try:
                    assert http.get("mesh://orders/").status_code == 200
                except Exception as error:
                    failures.append(error)

        callers = [threading.Thread(target=keep_calling) for _ in range(4)]
        for caller in callers:
            caller.start()
        seen = {
            applied(town, tmp_path, f"{{timeout: {seconds}s, concurrency: {100 + seconds}}}") for seconds in (3, 4, 5)
        }
        stop.set()
        for caller in callers:
            caller.join(10)
        assert not failures
        assert len(seen) == 3
        assert mesh.callee("orders").rules.revision == max(seen)
