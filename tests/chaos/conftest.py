"""Slow failure tests: ``make chaos``. What they measured is printed at the end."""

from __future__ import annotations

import random

import pytest

from tests.support.town.plugin import own_towns, pytest_runtest_makereport, towns

__all__ = ["own_towns", "pytest_runtest_makereport", "towns"]

Figures = list[tuple[str, str]]
_FIGURES = pytest.StashKey[Figures]()
_SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="Of the random failures; by default a new one, which is printed.")
    parser.addoption(
        "--fast", action="store_true", help="Shorter outages, fewer repetitions: a check of the tests themselves."
    )


def pytest_configure(config: pytest.Config) -> None:
    given = config.getoption("--seed")
    config.stash[_SEED] = random.randrange(100_000) if given is None else given
    config.stash[_FIGURES] = []


def pytest_report_header(config: pytest.Config) -> str:
    return f"chaos seed: {config.stash[_SEED]}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[_FIGURES]:
        terminalreporter.section("measured")
        for promise, measured in config.stash[_FIGURES]:
            terminalreporter.write_line(f"{promise:<58} {measured}")


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """``figures.append((promise, measured))``."""
    return request.config.stash[_FIGURES]


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    return request.config.stash[_SEED]


@pytest.fixture(scope="session")
def fast(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--fast"))
