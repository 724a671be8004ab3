"""From changed names to woken streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from controlplane.core.resource import ResourceKind, ResourceName
from controlplane.core.subscription import Subscriptions
from controlplane.core.view import View
from controlplane.runtime.pusher import Pusher
from tests.unit.runtime.house import until

ORDERS = ResourceName(ResourceKind.ENDPOINTS, "default/orders")
PAYMENTS = ResourceName(ResourceKind.ENDPOINTS, "default/payments")


class Listener:
    """A stream that counts how often it is woken."""

    def __init__(self) -> None:
        self.subscriptions = Subscriptions()
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def follow(self, pusher: Pusher, *names: ResourceName) -> Listener:
        for name in names:
            self.subscriptions.subscribe(name, 0, 0)
        pusher.follow(self, names)
        self.subscriptions.take(View(), 0.0)
        return self


@pytest.fixture
async def pusher() -> AsyncIterator[Pusher]:
    made = Pusher(quiet=0.02, limit=0.2)
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_change_wakes_exactly_those_who_follow_it(pusher: Pusher) -> None:
    orders, both, payments = Listener(), Listener(), Listener()
    orders.follow(pusher, ORDERS)
    both.follow(pusher, ORDERS, PAYMENTS)
    payments.follow(pusher, PAYMENTS)
    pusher.stepped(2, frozenset({ORDERS}), [])
    await until(lambda: both.woken == 1)
    assert (orders.woken, payments.woken) == (1, 0)
    assert orders.subscriptions.pending
    assert not payments.subscriptions.pending


async def test_a_burst_wakes_once(pusher: Pusher) -> None:
    listener = Listener().follow(pusher, ORDERS)
    for revision in range(2, 50):
        pusher.stepped(revision, frozenset({ORDERS}), [])
    await until(lambda: listener.woken == 1)
    await asyncio.sleep(0.1)
    assert listener.woken == 1


async def test_a_steady_stream_of_changes_is_pushed_all_the_same(pusher: Pusher) -> None:
    listener = Listener().follow(pusher, ORDERS)
    view, revision = View(), 2
    end = asyncio.get_running_loop().time() + 1.0
    while asyncio.get_running_loop().time() < end:
        pusher.stepped(revision, frozenset({ORDERS}), [])
        listener.subscriptions.take(view, 0.0)
        revision += 1
        await asyncio.sleep(0.005)
    assert listener.woken >= 2, "the quiet never comes; the limit does"


async def test_one_who_follows_no_longer_is_left_alone(pusher: Pusher) -> None:
    listener, other = Listener().follow(pusher, ORDERS), Listener().follow(pusher, ORDERS)
    listener.subscriptions.unsubscribe(ORDERS)
    pusher.unfollow(listener, [ORDERS, PAYMENTS])
    pusher.stepped(2, frozenset({ORDERS}), [])
    await until(lambda: other.woken == 1)
    assert listener.woken == 0
    assert pusher.followers(ORDERS) == 1
    pusher.unfollow(other, [ORDERS])
    assert pusher.followers(ORDERS) == 0


async def test_one_who_waits_for_the_view_is_woken_by_any_progress_once(pusher: Pusher) -> None:
    listener = Listener().follow(pusher, ORDERS)
    pusher.await_progress(listener)
    pusher.stepped(2, frozenset(), [])
    await until(lambda: listener.woken == 1)
    pusher.stepped(3, frozenset(), [])
    await asyncio.sleep(0.1)
    assert listener.woken == 1


async def test_a_thousand_followers_do_not_hold_up_the_loop(pusher: Pusher) -> None:
    listeners = [Listener().follow(pusher, ORDERS) for _ in range(1000)]
    turns = 0

    async def others() -> None:
        nonlocal turns
        while not all(listener.woken for listener in listeners):
            turns += 1
            await asyncio.sleep(0)

    pusher.stepped(2, frozenset({ORDERS}), [])
    await asyncio.wait_for(others(), 10)
    assert turns >= 10, "other work gets its turn while a change is fanned out"
