"""A service's state under full and partial news: what is held always equals what the server means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.endpoints import Endpoint, Health, Mismatch, News, ServiceState, Tally, decode
from trimtab.v1 import types_pb2 as wire

NAME = "default/orders"

endpoints = st.builds(
    wire.Endpoint,
    id=st.sampled_from([f"e{n}" for n in range(8)]),
    address=st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    port=st.integers(1, 3),
    weight=st.sampled_from([0, 1, 100]),
    health=st.sampled_from([1, 2, 3, 4]),
    zone=st.sampled_from(["", "a"]),
    metadata=st.dictionaries(st.sampled_from(["k"]), st.text(max_size=2), max_size=1),
)
steps = st.lists(st.tuples(st.lists(endpoints, max_size=4), st.sets(st.sampled_from([f"e{n}" for n in range(8)]))))


def whole(held: dict[str, wire.Endpoint], version: int, protected: bool = False) -> News:
    body = wire.Endpoints(full=True, changed=held.values(), total=len(held), protected=protected)
    return decode(wire.Resource(kind=wire.KIND_ENDPOINTS, name=NAME, version=version, digest=version, endpoints=body))


def difference(base: int, version: int, total: int, changed: Any = (), removed: Any = ()) -> News:
    body = wire.Endpoints(base=base, changed=changed, removed=removed, total=total)
    return decode(wire.Resource(kind=wire.KIND_ENDPOINTS, name=NAME, version=version, digest=version, endpoints=body))


def content(state: ServiceState) -> dict[str, Any]:
    def plain(held: Any) -> dict[str, Any]:
        return {id_: tuple(e) for id_, e in held.items()}

    return {"all": plain(state.endpoints), "healthy": plain(state.healthy), "suspect": plain(state.suspect)}


def service(*told: wire.Endpoint, protected: bool = False) -> ServiceState:
    return ServiceState(NAME).apply(whole({e.id: e for e in told}, 1, protected))


def ids(chosen: list[Endpoint]) -> list[str]:
    return sorted(e.id for e in chosen)


def some(id_: str, health: Health = Health.HEALTHY, weight: int = 100) -> wire.Endpoint:
    return wire.Endpoint(id=id_, address="h", port=1, weight=weight, health=int(health))  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(steps)
def test_differences_amount_to_the_same_as_the_whole(changes: list[tuple[list[wire.Endpoint], set[str]]]) -> None:
    truth: dict[str, wire.Endpoint] = {}
    state = ServiceState(NAME).apply(whole(truth, 1))
    for version, (changed, removed) in enumerate(changes, 2):
        gone = removed - {e.id for e in changed}
        latest = {e.id: e for e in changed}
        truth.update(latest)
        for id_ in gone:
            truth.pop(id_, None)
        state = state.apply(difference(version - 1, version, len(truth), latest.values(), gone))
        assert content(state) == content(ServiceState(NAME).apply(whole(truth, version)))
        assert state.version == version


@settings(max_examples=40, deadline=None)
@given(steps)
def test_an_older_state_never_changes_under_its_reader(changes: list[tuple[list[wire.Endpoint], set[str]]]) -> None:
    truth = {"e0": some("e0"), "e1": some("e1", Health.SUSPECT)}
    first = ServiceState(NAME).apply(whole(truth, 1))
    before = content(first)
    state = first
    for version, (changed, removed) in enumerate(changes, 2):
        truth.update({e.id: e for e in changed})
        gone = removed - {e.id for e in changed}
        for id_ in gone:
            truth.pop(id_, None)
        state = state.apply(difference(version - 1, version, len(truth), {e.id: e for e in changed}.values(), gone))
    assert content(first) == before


@settings(max_examples=40, deadline=None)
@given(st.lists(endpoints, max_size=6))
def test_a_state_survives_its_own_resource(told: list[wire.Endpoint]) -> None:
    state = ServiceState(NAME).apply(whole({e.id: e for e in told}, 7, protected=True))
    again = ServiceState(NAME).apply(decode(state.to_resource()))
    assert content(again) == content(state)
    assert (again.version, again.digest, again.protected) == (7, 7, True)


def test_a_difference_from_another_version_is_refused_and_nothing_changes() -> None:
    state = service(some("a"))
    with pytest.raises(Mismatch, match="starts from version 9, held is 1"):
        state.apply(difference(9, 10, 2, [some("b")]))
    assert list(state.endpoints) == ["a"]


def test_a_difference_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(Mismatch, match="2 endpoints after the change, the server counts 5"):
        service(some("a")).apply(difference(1, 2, 5, [some("b")]))


def test_a_whole_that_does_not_add_up_is_refused() -> None:
    broken = whole({"a": some("a")}, 2)._replace(total=3)
    with pytest.raises(Mismatch):
        service(some("a")).apply(broken)


def test_a_service_that_does_not_exist_has_no_endpoints() -> None:
    state = service(some("a")).apply(decode(wire.Resource(kind=wire.KIND_ENDPOINTS, name=NAME)))
    assert not state.endpoints
    assert state.version == 0


def test_calls_in_flight_are_remembered_across_changes_for_as_long_as_the_endpoint_is_there() -> None:
    state = service(some("a"), some("b"))
    state.tallies.update(a=Tally(), b=Tally())
    state.tallies["a"].in_flight += 1
    changed = state.apply(difference(1, 2, 2, [some("a", weight=7)]))
    assert changed.tallies["a"].in_flight == 1
    assert set(changed.apply(difference(2, 3, 1, removed=["b"])).tallies) == {"a"}
    assert set(changed.apply(whole({"c": some("c")}, 4)).tallies) == set()


def test_what_calls_count_of_endpoints_that_were_just_removed_does_not_pile_up() -> None:
    """A call that picks before the news are in force, and counts after, adds one that nobody would ever take out."""
    state = service(some("0"))
    for number in range(1, 100):
        state = state.apply(difference(number, number + 1, 1, [some(str(number))], [str(number - 1)]))
        state.tallies[str(number - 1)] = Tally()
    assert len(state.tallies) <= 4


def test_refused_news_forget_no_calls() -> None:
    state = service(some("a"))
    state.tallies["a"] = Tally()
    with pytest.raises(Mismatch):
        state.apply(difference(1, 2, 5, removed=["a"]))
    assert set(state.tallies) == {"a"}


def test_only_the_healthy_with_a_weight_may_be_called() -> None:
    state = service(
        some("a"),
        some("b", weight=0),
        some("c", Health.DRAINING),
        some("d", Health.UNHEALTHY),
        some("e", Health.SUSPECT),
    )
    assert ids(state.eligible()) == ["a"]


def test_under_protection_suspects_are_tried_when_fewer_than_half_are_healthy() -> None:
    state = service(some("a"), some("b", Health.SUSPECT), some("c", Health.SUSPECT), protected=True)
    assert ids(state.eligible()) == ["a", "b", "c"]


def test_under_protection_half_healthy_is_enough_to_leave_suspects_alone() -> None:
    state = service(some("a"), some("b"), some("c", Health.SUSPECT), some("d", Health.SUSPECT), protected=True)
    assert ids(state.eligible()) == ["a", "b"]


def test_drained_endpoints_do_not_count_as_failed_under_protection() -> None:
    drained = [some(f"d{n}", Health.DRAINING) for n in range(5)]
    state = service(some("a"), some("b", Health.SUSPECT), *drained, protected=True)
    assert ids(state.eligible()) == ["a"]


def test_without_protection_suspects_are_never_called() -> None:
    assert service(some("a", Health.SUSPECT)).eligible() == []


def test_suspects_without_a_weight_are_not_tried_either() -> None:
    assert service(some("a", Health.SUSPECT, weight=0), protected=True).eligible() == []


def test_a_target_puts_ipv6_into_brackets() -> None:
    told = some("a")
    told.address = "::1"
    assert service(told).endpoints["a"].target == "[::1]:1"
