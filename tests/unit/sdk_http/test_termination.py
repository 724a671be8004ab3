"""SIGTERM, taken before the server sees it, and handed on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from trimtab.servers.termination import Termination


@pytest.fixture
def seen() -> Iterator[list[str]]:
    """What a server's own handler would see."""
    seen: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: seen.append("server"))
    yield seen
    signal.signal(signal.SIGTERM, before)


def test_the_server_sees_the_signal_only_when_it_is_handed_on(seen: list[str]) -> None:
    termination = Termination(lambda: seen.append("drain"))
    assert termination.install()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert seen == ["drain"]
    termination.hand_on()
    assert seen == ["drain", "server"]


def test_a_server_that_stops_by_itself_has_its_signal_back(seen: list[str]) -> None:
    termination = Termination(lambda: seen.append("drain"))
    termination.install()
    termination.restore()
    signal.raise_signal(signal.SIGTERM)
    assert seen == ["server"]


def test_a_handler_that_came_later_is_left_alone(seen: list[str]) -> None:
    termination = Termination(lambda: seen.append("drain"))
    termination.install()
    signal.signal(signal.SIGTERM, lambda signum, frame: seen.append("later"))
    termination.restore()
    signal.raise_signal(signal.SIGTERM)
    assert seen == ["later"]


def test_nothing_is_taken_outside_of_the_main_thread(seen: list[str]) -> None:
    taken: list[bool] = []
    thread = threading.Thread(target=lambda: taken.append(Termination(lambda: seen.append("drain")).install()))
    thread.start()
    thread.join(10)
    assert taken == [False]
    signal.raise_signal(signal.SIGTERM)
    assert seen == ["server"]


def test_a_child_that_was_just_forked_ends_by_its_signal_and_drains_nobody(seen: list[str]) -> None:
    Termination(lambda: seen.append("drain")).install()
    child = os.fork()
    if child == 0:
        signal.raise_signal(signal.SIGTERM)
        os._exit(0 if not seen else 1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert seen == []
