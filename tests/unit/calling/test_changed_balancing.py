"""What is known of endpoints when an operator has calls balanced otherwise: it makes nobody new, or well."""

from __future__ import annotations

from collections import Counter

import pytest
from trimtab.core.orca import LoadReport
from trimtab.testing import FakeMesh

OUTLIER = "outlier: {consecutive: 2, interval: 5s, eject_for: 30s}"
CANARY = "balance: round_robin, split: {{weights: {{v1: {}, v2: {}}}}}"


def calls(mesh: FakeMesh, number: int, failing: str = "") -> Counter[str]:
    """Whom calls go to, of which those to ``failing`` fail."""
    taken = Counter[str]()
    for _ in range(number):
        pick = mesh.pick("orders")
        taken[pick.endpoint.id] += 1
        mesh.clock.advance(0.01)
        pick.done(pick.endpoint.id != failing)
    return taken


def six(mesh: FakeMesh) -> None:
    mesh.add("orders", *(f"10.0.0.{number}:80" for number in range(3)), metadata={"version": "v1"})
    mesh.add("orders", *(f"10.0.1.{number}:80" for number in range(3)), metadata={"version": "v2"})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (CANARY.format(90, 10), CANARY.format(50, 50)),
        ("balance: round_robin", "balance: least_request"),
        ("balance: random", CANARY.format(50, 50)),
    ],
)
def test_who_was_ejected_stays_so_for_its_time(before: str, after: str) -> None:
    with FakeMesh() as mesh:
        six(mesh)
        mesh.policy("orders", f"default: {{retry: off, {before}, {OUTLIER}}}")
        calls(mesh, 60, failing="10.0.0.0-80")
        assert mesh.callee("orders").rules.ejected == {"10.0.0.0-80"}
        mesh.policy("orders", f"default: {{retry: off, {after}, {OUTLIER}}}")
        assert "10.0.0.0-80" not in calls(mesh, 60)
        mesh.clock.advance(40)
        assert calls(mesh, 100)["10.0.0.0-80"] > 5
        assert mesh.callee("orders").rules.ejected == set()


ROUTE = "routes: [{match: {header: {x-a: '1'}}, timeout: 1s}]"


def test_who_was_ejected_stays_so_when_a_route_goes_and_more_changes_before_the_next_call() -> None:
    with FakeMesh() as mesh:
        six(mesh)
        mesh.policy("orders", f"{ROUTE}\ndefault: {{retry: off, balance: round_robin, {OUTLIER}}}")
        calls(mesh, 60, failing="10.0.0.0-80")
        for seconds in (2, 3):
            mesh.policy("orders", f"default: {{retry: off, balance: round_robin, timeout: {seconds}s, {OUTLIER}}}")
        assert "10.0.0.0-80" not in calls(mesh, 60)


def test_failures_in_a_row_are_counted_on() -> None:
    with FakeMesh() as mesh:
        six(mesh)
        for revision in range(6):
            mesh.policy("orders", f"default: {{retry: off, {CANARY.format(100, revision + 1)}, outlier: 5}}")
            failed = 0
            while not failed:
                failed = calls(mesh, 1, failing="10.0.0.0-80")["10.0.0.0-80"]
                if mesh.callee("orders").rules.ejected:
                    break
        assert mesh.callee("orders").rules.ejected == {"10.0.0.0-80"}


def test_other_rules_of_who_is_an_outlier_begin_anew() -> None:
    with FakeMesh() as mesh:
        six(mesh)
        mesh.policy("orders", f"default: {{retry: off, balance: round_robin, {OUTLIER}}}")
        calls(mesh, 60, failing="10.0.0.0-80")
        mesh.policy("orders", "default: {retry: off, balance: round_robin, outlier: 3}")
        assert mesh.callee("orders").rules.ejected == set()


def test_a_newcomer_goes_on_starting_slowly() -> None:
    with FakeMesh() as mesh:
        six(mesh)
        balance = "default: {{balance: {{algorithm: random, slow_start: 10m, error_penalty: {}s}}}}"
        mesh.policy("orders", balance.format(1))
        mesh.add("orders", "10.0.2.0:80")
        calls(mesh, 1)
        mesh.policy("orders", balance.format(2))
        assert calls(mesh, 600)["10.0.2.0-80"] < 30


def test_pick_first_stays_where_it_is() -> None:
    with FakeMesh() as mesh:
        six(mesh)
        mesh.policy("orders", "default: {balance: pick_first}")
        (chosen,) = calls(mesh, 3)
        for seconds in range(2, 12):
            mesh.policy("orders", f"default: {{balance: {{algorithm: pick_first, error_penalty: {seconds}s}}}}")
            assert set(calls(mesh, 3)) == {chosen}


def test_reports_of_load_are_believed_on() -> None:
    with FakeMesh() as mesh:
        six(mesh)
        balance = "default: {{balance: {{algorithm: round_robin, weights: load, error_penalty: {}s}}}}"
        mesh.policy("orders", balance.format(1))
        loads = mesh.callee("orders").pipeline("").balancer.loads
        assert loads is not None
        for _ in range(12):
            for endpoint in mesh.callee("orders").state.endpoints.values():
                busy = 0.9 if endpoint.id == "10.0.0.0-80" else 0.1
                loads.report(endpoint.id, LoadReport(qps=100.0, cpu=busy), mesh.clock.now())
            mesh.clock.advance(1.0)
        mesh.policy("orders", balance.format(2))
        assert calls(mesh, 460)["10.0.0.0-80"] < 20
