from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from controlplane.runtime import keeper
from tests.unit.runtime.house import House, Town, town

Build = Callable[..., Awaitable[House]]


@pytest.fixture
async def neighbourhood(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Town, Build]]:
    monkeypatch.setattr(keeper, "_ADOPT", 0.05)
    monkeypatch.setattr(keeper, "_RETRY", 0.1)
    monkeypatch.setattr(keeper, "_REJUDGE", 0.1)
    monkeypatch.setattr(keeper, "_RENEW_TURN", 0.1)
    async with town() as place:
        yield place


@pytest.fixture
def store(neighbourhood: tuple[Town, Build]) -> Town:
    return neighbourhood[0]


@pytest.fixture
def build(neighbourhood: tuple[Town, Build]) -> Build:
    return neighbourhood[1]


@pytest.fixture
async def house(build: Build) -> House:
    return await build("one")
