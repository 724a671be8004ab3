"""What happens beside calls, as hooks are told of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from trimtab.hooks import (
    CircuitChanged,
    EndpointEjected,
    EndpointReturned,
    EndpointsChanged,
    PolicyApplied,
    PolicyRefused,
)
from trimtab.testing import FakeMesh

from tests.support.missing import without_xxhash
from tests.unit.hooks.heard import Heard


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def mesh(heard: Heard) -> Iterator[FakeMesh]:
    with FakeMesh(hooks=[heard]) as mesh:
        mesh.add("orders", "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
        yield mesh


def call(mesh: FakeMesh, times: int = 1) -> None:
    with mesh.http_client() as http:
        for _ in range(times):
            http.get("mesh://orders/")


def test_a_circuit_opens_probes_and_closes(mesh: FakeMesh, heard: Heard) -> None:
    breaker = "{scope: service, open_when: {consecutive: 2}, open_for: 10s, probes: 1}"
    mesh.policy("orders", f"default: {{retry: off, breaker: {breaker}}}")
    mesh.respond("orders", [500, 500, 200])
    call(mesh, 2)
    mesh.clock.advance(11)
    call(mesh)
    changes = [(event.before, event.after) for event in heard.told(CircuitChanged)]
    assert changes == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]
    assert heard.told(CircuitChanged)[0][:3] == ("default/orders", "service", "")
    assert mesh.callee("orders").statistics.read().transitions == {"open": 1, "half-open": 1, "closed": 1}


def test_a_circuit_that_an_operator_opens_is_told_of_with_its_first_call(mesh: FakeMesh, heard: Heard) -> None:
    mesh.policy("orders", "default: {breaker: {scope: endpoint, open_when: {consecutive: 2}, force: open}}")
    mesh.respond("orders", 200)
    with pytest.raises(Exception, match="circuits of all endpoints"):
        call(mesh)
    told = heard.told(CircuitChanged)
    assert {event.name for event in told} == {"10.0.0.1-80", "10.0.0.2-80", "10.0.0.3-80"}
    assert {event.after for event in told} == {"forced-open"}


def test_an_endpoint_is_ejected_and_returns(mesh: FakeMesh, heard: Heard) -> None:
    outlier = "{consecutive: 2, eject_for: 30s, interval: 10s, max_ejected: 50%}"
    mesh.policy("orders", f"default: {{retry: off, balance: round_robin, outlier: {outlier}}}")
    mesh.respond("orders", 200)
    mesh.respond("orders", 500, endpoint="10.0.0.2-80")
    call(mesh, 6)
    assert heard.told(EndpointEjected) == [EndpointEjected("default/orders", "10.0.0.2-80")]
    assert heard.told(EndpointReturned) == []
    mesh.clock.advance(45)
    call(mesh)
    assert heard.told(EndpointReturned) == [EndpointReturned("default/orders", "10.0.0.2-80")]
    assert mesh.callee("orders").statistics.read().ejections == 1


@pytest.mark.parametrize("after", ["off", "{consecutive: 3, max_ejected: 50%}"])
def test_an_endpoint_returns_when_another_policy_lets_it_back(mesh: FakeMesh, heard: Heard, after: str) -> None:
    others = "retry: off, balance: round_robin, outlier:"
    mesh.policy("orders", f"default: {{{others} {{consecutive: 2, max_ejected: 50%}}}}")
    mesh.respond("orders", 200)
    mesh.respond("orders", 500, endpoint="10.0.0.2-80")
    call(mesh, 6)
    mesh.policy("orders", f"default: {{{others} {after}}}")
    assert heard.told(EndpointReturned) == [EndpointReturned("default/orders", "10.0.0.2-80")]


def test_policies_and_endpoints_are_told_of(mesh: FakeMesh, heard: Heard) -> None:
    mesh.callee("orders")
    mesh.policy("orders", "default: {timeout: 2s}")
    applied = heard.told(PolicyApplied)[-1]
    assert applied.name == "default/orders"
    assert applied.revision == mesh.callee("orders").rules.revision
    mesh.remove("orders", "10.0.0.1-80")
    assert len(heard.told(EndpointsChanged)[-1].state.endpoints) == 2


def test_a_policy_that_cannot_be_applied_is_told_of_with_the_reason(mesh: FakeMesh, heard: Heard) -> None:
    mesh.callee("orders")
    with without_xxhash(), pytest.raises(ValueError, match="cannot be applied"):
        mesh.policy("orders", "default: {balance: {subset: 2}}")
    (refused,) = heard.told(PolicyRefused)
    assert refused.name == "default/orders"
    assert "pip install 'trimtab[hash]'" in refused.reason
    assert refused.revision > 0
