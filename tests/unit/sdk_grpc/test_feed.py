"""The requests of a stream: what an attempt took and nobody was sent, the next one gets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.grpc.feed import AsyncFeed, Drawn, Feed, feed


def test_an_attempt_that_took_one_request_leaves_all_to_the_next() -> None:
    requests = Feed(iter("abc"))
    assert next(requests.view()) == "a"
    assert requests.stop() == Drawn(touched=True, replayable=True)
    assert list(requests.view()) == ["a", "b", "c"]
    assert requests.stop() == Drawn(touched=True, replayable=False)


def test_an_attempt_that_took_none_was_not_touched() -> None:
    requests = Feed(iter("abc"))
    requests.view()
    assert requests.stop() == Drawn(touched=False, replayable=True)


@given(st.lists(st.integers(), max_size=5), st.lists(st.sampled_from([0, 1]), max_size=4))
@settings(max_examples=100, deadline=None)
def test_no_request_is_lost_or_told_twice_however_many_attempts_are_given_up(
    asked: list[int], given_up: list[int]
) -> None:
    requests = Feed(iter(asked))
    for taken in given_up:
        view = requests.view()
        for _ in range(taken):
            next(view, None)
        assert requests.stop().replayable
    assert list(requests.view()) == asked


def test_what_comes_for_an_attempt_that_is_over_is_kept_for_the_next() -> None:
    asked, comes = threading.Event(), threading.Event()

    def slowly() -> Iterator[str]:
        asked.set()
        comes.wait(10)
        yield from "abc"

    requests = Feed(slowly())
    stale: list[str] = []
    thread = threading.Thread(target=lambda: stale.extend(requests.view()))
    thread.start()
    assert asked.wait(10)
    requests.stop()
    view = requests.view()
    comes.set()
    assert list(view) == ["a", "b", "c"]
    thread.join(10)
    assert stale == []


async def test_the_same_holds_for_asynchronous_requests() -> None:
    comes = asyncio.Event()

    async def slowly() -> AsyncIterator[str]:
        await comes.wait()
        for request in "abc":
            yield request

    requests = feed(slowly())
    assert isinstance(requests, AsyncFeed)
    stale = asyncio.create_task(anext(requests.view(), "nothing"))
    await asyncio.sleep(0)
    requests.stop()
    view = requests.view()
    comes.set()
    assert [request async for request in view] == ["a", "b", "c"]
    assert await stale == "nothing"


async def test_an_asynchronous_attempt_leaves_the_one_request_that_it_took() -> None:
    async def all_at_once() -> AsyncIterator[str]:
        for request in "abc":
            yield request

    requests = AsyncFeed(all_at_once())
    assert await anext(requests.view()) == "a"
    assert requests.stop().replayable
    assert [request async for request in requests.view()] == ["a", "b", "c"]


def test_nothing_is_no_feed() -> None:
    assert feed(None) is None
    assert isinstance(feed(["a"]), Feed)
