"""How much time is left inside of a guarded function, and what calls that are made there inherit."""

from __future__ import annotations

import pytest
import trimtab
from trimtab.errors import DeadlineExceeded
from trimtab.testing import FakeAsyncMesh, FakeMesh

# Without and with the short way of calls.
WAYS = ["", ", fallback: {value: nothing, on: refused}", ", hedge: 10s"]


@pytest.fixture
def mesh(fake_mesh: FakeMesh) -> FakeMesh:
    fake_mesh.add("orders", "10.0.0.1:8000")
    fake_mesh.add("stock", "10.0.1.1:8000")
    return fake_mesh


@pytest.fixture
def async_mesh(fake_async_mesh: FakeAsyncMesh) -> FakeAsyncMesh:
    fake_async_mesh.add("orders", "10.0.0.1:8000")
    fake_async_mesh.add("stock", "10.0.1.1:8000")
    return fake_async_mesh


@pytest.mark.parametrize("more", WAYS)
def test_a_guarded_function_knows_how_long_it_has(mesh: FakeMesh, more: str) -> None:
    mesh.policy("orders", f"default: {{timeout: {{total: 3s, attempt: 2s}}{more}}}")

    @mesh.guard("orders", idempotent=True)
    def charge(*, endpoint: object) -> float | None:
        mesh.clock.advance(0.5)
        return trimtab.remaining()

    assert charge() == pytest.approx(1.5)
    assert trimtab.remaining() is None
    with trimtab.within(1.0):
        assert charge() == pytest.approx(0.5)
        assert trimtab.remaining() == pytest.approx(0.5)


@pytest.mark.parametrize("more", WAYS)
async def test_an_awaited_one_does_too(async_mesh: FakeAsyncMesh, more: str) -> None:
    async_mesh.policy("orders", f"default: {{timeout: {{total: 3s, attempt: 2s}}{more}}}")

    @async_mesh.guard("orders", idempotent=True)
    async def charge(*, endpoint: object) -> float | None:
        await async_mesh.clock.pause(0.5)
        return trimtab.remaining()

    assert await charge() == pytest.approx(1.5)
    assert trimtab.remaining() is None


def test_each_attempt_has_a_time_of_its_own(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {timeout: {total: 3s, attempt: 2s}, retry: {on: reset, backoff: 1ms..1ms}}")
    left: list[float | None] = []

    @mesh.guard("orders", idempotent=True)
    def charge(*, endpoint: object) -> None:
        left.append(trimtab.remaining())
        mesh.clock.advance(0.75)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        charge()
    assert left == pytest.approx([2.0, 2.0, 1.5], abs=0.01)


def test_a_function_without_a_timeout_has_no_end(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {timeout: off}")
    assert mesh.guard("orders")(trimtab.remaining)() is None


def test_nested_calls_end_with_the_attempt_that_makes_them(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {timeout: {total: 10s, attempt: 2s}}")

    @mesh.guard("stock", idempotent=True)
    def count(*, endpoint: object) -> None:
        pytest.fail("it was too late for this call")

    @mesh.guard("orders")
    def charge(*, endpoint: object) -> None:
        mesh.pick("stock").done()
        mesh.clock.advance(2)
        count()

    with pytest.raises(DeadlineExceeded):
        charge()
    nested = mesh.calls("stock")[0]
    assert nested.deadline == pytest.approx(nested.began + 2)


def test_the_block_of_an_attempt_knows_how_long_it_has(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {timeout: {total: 3s, attempt: 2s}}")
    for attempt in mesh.attempts("orders"):
        with attempt:
            assert trimtab.remaining() == pytest.approx(2.0)
        assert trimtab.remaining() is None


def test_a_function_that_fails_leaves_no_deadline_behind(mesh: FakeMesh) -> None:
    @mesh.guard("orders")
    def charge(*, endpoint: object) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        charge()
    assert trimtab.remaining() is None
