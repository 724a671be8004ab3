"""One pool per endpoint."""

from __future__ import annotations

from trimtab.http.pools import IDLE, Pools


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_endpoint_has_one_pool() -> None:
    pools = Pools(lambda origin: [origin])
    assert pools.acquire("http://a") is pools.acquire("http://a")
    assert pools.acquire("http://b") == ["http://b"]


def test_a_pool_that_is_in_use_is_not_idle_however_long_it_takes() -> None:
    clock = Hands()
    pools = Pools(str, clock=clock)
    pools.acquire("used")
    pools.acquire("unused")
    pools.release("unused")
    clock.now = IDLE + 1
    assert pools.idle() == ["unused"]
    pools.release("used")
    clock.now = 3 * IDLE
    assert pools.idle() == ["used"]


def test_idle_pools_are_looked_for_now_and_then_only() -> None:
    clock = Hands()
    pools = Pools(str, clock=clock)
    clock.now = IDLE
    pools.acquire("a")
    pools.release("a")
    assert pools.idle() == []
    clock.now = IDLE + 1
    assert pools.idle() == []


def test_draining_gives_all_of_them_up_and_late_releases_are_harmless() -> None:
    pools = Pools(str)
    pools.acquire("a")
    assert pools.drain() == ["a"]
    pools.release("a")
    assert pools.drain() == []
