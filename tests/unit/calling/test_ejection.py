"""Outlier detection among those that get calls, which are not always all that are known."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from trimtab.testing import FakeMesh

FAILING = "default: {retry: off, balance: round_robin, outlier: {consecutive: 2, max_ejected: 50%}}"


def fail(mesh: FakeMesh, times: int) -> None:
    for _ in range(times):
        with suppress(RuntimeError), mesh.pick("orders"):
            raise RuntimeError


def test_where_all_that_are_healthy_fail_nobody_is_ejected_however_many_others_are_known() -> None:
    with FakeMesh() as mesh:
        mesh.add("orders", *(f"10.0.0.{number}:80" for number in range(10)))
        for number in range(6):
            mesh.health("orders", f"10.0.0.{number}-80", "unhealthy")
        mesh.policy("orders", FAILING)
        fail(mesh, 20)
        assert mesh.callee("orders").rules.ejected == set()


def test_where_all_of_the_own_tier_fail_nobody_is_ejected_however_many_stand_by() -> None:
    with FakeMesh() as mesh:
        mesh.add("orders", "10.0.0.1:80", "10.0.0.2:80", metadata={"tier": "primary"})
        mesh.add("orders", *(f"10.0.1.{number}:80" for number in range(6)), metadata={"tier": "standby"})
        mesh.policy("orders", FAILING.replace("round_robin", "{algorithm: round_robin, failover: {}}"))
        fail(mesh, 20)
        assert mesh.callee("orders").rules.ejected == set()


def test_who_becomes_unhealthy_is_ejected_no_longer() -> None:
    with FakeMesh() as mesh:
        mesh.add("orders", *(f"10.0.0.{number}:80" for number in range(4)))
        mesh.policy("orders", FAILING)
        for _ in range(8):
            pick = mesh.pick("orders")
            pick.done(pick.endpoint.id != "10.0.0.1-80")
        assert mesh.callee("orders").rules.ejected == {"10.0.0.1-80"}
        mesh.health("orders", "10.0.0.1-80", "unhealthy")
        assert mesh.callee("orders").rules.ejected == set()


def test_answers_that_break_off_are_no_fast_ones() -> None:
    with FakeMesh() as mesh:
        mesh.add("orders", *(f"10.0.0.{number}:80" for number in range(3)))
        mesh.policy("orders", "default: {retry: off, outlier: off, balance: p2c}")
        pipeline, taken = mesh.callee("orders").pipeline(""), Counter[str]()
        for _ in range(300):
            call = pipeline.begin(mesh.clock.now())
            assert call.endpoint is not None
            breaks = call.endpoint.id == "10.0.0.0-80"
            mesh.clock.advance(0.001 if breaks else 0.01)
            pipeline.answered(call, mesh.clock.now())
            pipeline.over(call, mesh.clock.now(), broke=breaks)
            taken[call.endpoint.id] += 1
        assert taken["10.0.0.0-80"] < 15
        assert sum(taken.values()) == 300
