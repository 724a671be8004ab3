"""Two shops, and both kinds of callers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.sdk_grpc.shop import AwaitedCaller, BlockingCaller, Shop, serving


@pytest.fixture(params=[BlockingCaller, AwaitedCaller], ids=["blocking", "awaited"])
def caller(request: pytest.FixtureRequest) -> BlockingCaller | AwaitedCaller:
    made: BlockingCaller | AwaitedCaller = request.param()
    return made


@pytest.fixture
def shop() -> Iterator[Shop]:
    with serving("a") as shop:
        yield shop


@pytest.fixture
def other() -> Iterator[Shop]:
    with serving("b") as shop:
        yield shop
