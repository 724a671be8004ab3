"""One pool per endpoint."""

from __future__ import annotations

from trimtab.core.endpoints import Endpoint
from trimtab.http.pools import IDLE, Pools

from tests.unit.sdk_http.known_mesh import endpoint_at

A, B = endpoint_at(1), endpoint_at(2)


def used(pools: Pools[str], endpoint: Endpoint, now: float) -> None:
    pools.acquire(endpoint, now)
    pools.release(endpoint)


def test_an_endpoint_has_one_pool() -> None:
    pools = Pools(lambda origin: [origin])
    assert pools.acquire(A, 0.0).pool is pools.acquire(A, 1.0).pool
    assert pools.acquire(B, 2.0).pool == ["http://127.0.0.1:2"]


def test_an_endpoint_that_is_described_anew_keeps_its_pool_unless_it_is_spoken_to_otherwise() -> None:
    pools = Pools(str)
    slot = pools.acquire(A, 0.0)
    assert pools.acquire(A._replace(weight=1), 0.0) is slot
    secure = pools.acquire(endpoint_at(1, scheme="https"), 0.0)
    assert (secure.pool, secure.scheme) == ("https://127.0.0.1:1", b"https")


def test_a_client_may_insist_on_what_it_speaks() -> None:
    assert Pools(str, "https").acquire(A, 0.0).pool == "https://127.0.0.1:1"


def test_a_slot_tells_where_it_leads_as_the_wire_has_it() -> None:
    slot = Pools(str).acquire(A._replace(address="bücher.example"), 0.0)
    assert (slot.scheme, slot.host, slot.port) == (b"http", b"xn--bcher-kva.example", 1)


def test_a_pool_that_is_in_use_is_not_idle_however_long_it_takes() -> None:
    pools = Pools(str)
    pools.acquire(A, 0.0)
    used(pools, B, 0.0)
    used(pools, endpoint_at(3), IDLE + 1)
    assert pools.given_up == ["http://127.0.0.1:2"]
    pools.release(A)
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


def test_draining_gives_all_of_them_up_and_late_releases_are_harmless() -> None:
    pools = Pools(str)
    pools.acquire(A, 0.0)
    assert pools.drain() == ["http://127.0.0.1:1"]
    pools.release(A)
    assert pools.drain() == []
