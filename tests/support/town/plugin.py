"""The fixtures ``towns`` and ``own_towns``, and the logs of their processes in the report of a test that failed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import pytest

from tests.support.town.town import Town

Build = Callable[..., Town]
_STANDING = pytest.StashKey[list[Town]]()


@pytest.fixture(scope="module")
def towns(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """``towns(**settings)`` builds a town of the module's own, which is cleared when the module's tests are over."""
    with _building(request.config, tmp_path_factory) as build:
        yield build


@pytest.fixture
def own_towns(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """The same, for one test."""
    with _building(request.config, tmp_path_factory) as build:
        yield build


@contextmanager
def _building(config: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    standing = config.stash.setdefault(_STANDING, [])
    mine: list[Town] = []

    def build(**settings: object) -> Town:
        town = Town(tmp_path_factory.mktemp("town"), **settings)
        mine.append(town)
        standing.append(town)
        return town

    try:
        yield build
    finally:
        for town in mine:
            town.clear()
            standing.remove(town)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for town in item.config.stash.get(_STANDING, []):
            report.sections += [(f"{town.directory.name}: {name}", tail) for name, tail in town.logs()]
    return report
