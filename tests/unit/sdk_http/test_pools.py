"""One pool per endpoint."""

from __future__ import annotations

from trimtab.calling.in_use import IDLE
from trimtab.core.endpoints import Endpoint, Tally
from trimtab.http.pools import Pools

from tests.unit.sdk_http.known_mesh import endpoint_at

A, B = endpoint_at(1), endpoint_at(2)


def used(pools: Pools[str], endpoint: Endpoint, now: float) -> None:
    pools.of(endpoint, Tally(), now)


def in_flight() -> Tally:
    tally = Tally()
    tally.in_flight = 1
    return tally


def test_an_endpoint_has_one_pool() -> None:
    pools = Pools(lambda origin: [origin])
    assert pools.of(A, Tally(), 0.0).pool is pools.of(A, Tally(), 1.0).pool
    assert pools.of(B, Tally(), 2.0).pool == ["http://127.0.0.1:2"]


def test_an_endpoint_that_is_described_anew_keeps_its_pool_unless_it_is_spoken_to_otherwise() -> None:
    pools = Pools(str)
    slot = pools.of(A, Tally(), 0.0)
    assert pools.of(A._replace(weight=1), Tally(), 0.0) is slot
    secure = pools.of(endpoint_at(1, scheme="https"), Tally(), 0.0)
    assert (secure.pool, secure.scheme) == ("https://127.0.0.1:1", b"https")


def test_a_client_may_insist_on_what_it_speaks() -> None:
    assert Pools(str, "https").of(A, Tally(), 0.0).pool == "https://127.0.0.1:1"


def test_a_slot_tells_where_it_leads_as_the_wire_has_it() -> None:
    slot = Pools(str).of(A._replace(address="bücher.example"), Tally(), 0.0)
    assert (slot.scheme, slot.host, slot.port) == (b"http", b"xn--bcher-kva.example", 1)


def test_a_pool_that_is_in_use_is_not_idle_however_long_it_takes() -> None:
    pools, tally = Pools(str), in_flight()
    pools.of(A, tally, 0.0)
    used(pools, B, 0.0)
    used(pools, endpoint_at(3), IDLE + 1)
    assert pools.given_up == ["http://127.0.0.1:2"]
    tally.in_flight = 0
    used(pools, endpoint_at(3), 2 * IDLE)
    assert pools.given_up == ["http://127.0.0.1:2", "http://127.0.0.1:1"]


def test_idle_pools_are_looked_for_now_and_then_only() -> None:
    pools = Pools(str)
    used(pools, A, 0.0)
    used(pools, B, IDLE)
    used(pools, B, IDLE + 1)
    assert pools.given_up == []
    used(pools, B, IDLE + 10)
    assert pools.given_up == ["http://127.0.0.1:1"]


def test_services_that_share_an_address_each_keep_its_pool_in_use() -> None:
    pools, orders, users = Pools(str), in_flight(), in_flight()
    for tally in (orders, users, Tally(), orders, Tally()):
        pools.of(A, tally, 0.0)
    users.in_flight = 0
    used(pools, B, IDLE + 1)
    assert pools.given_up == []
    orders.in_flight = 0
    used(pools, B, IDLE + 11)
    assert pools.given_up == ["http://127.0.0.1:1"]


def test_draining_gives_all_of_them_up() -> None:
    pools = Pools(str)
    pools.of(A, in_flight(), 0.0)
    assert pools.drain() == ["http://127.0.0.1:1"]
    assert pools.drain() == []
