"""The admin API on a real port, over a memory store, in a thread of its own: commands and sockets meet the real thing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from controlplane.http.server import HttpServer
from tests.unit.http.house import House, open_house

T = TypeVar("T")


@dataclass
class Served:
    """A listening admin API and a way into its event loop."""

    house: House
    port: int
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)


class Thread(threading.Thread):
    """Serves until ``stop``; ``port`` 0 is any free one."""

    def __init__(self, *, token: str | None = None, port: int = 0, tls: tuple[Path, Path, Path] | None = None) -> None:
        super().__init__(name="admin-api")
        self._tls = tls or (None, None, None)
        self._token = token
        self._port = port
        self._ready = threading.Event()
        self.served: Served | None = None

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        async with open_house() as house:
            server = HttpServer(f"127.0.0.1:{self._port}", *self._tls)
            serving = asyncio.create_task(server.serve(house.app(token=self._token)))
            self._server = server
            self.served = Served(house, server.port, asyncio.get_running_loop())
            self._ready.set()
            await serving

    def begin(self) -> Served:
        self.start()
        assert self._ready.wait(10)
        assert self.served is not None
        return self.served

    def stop(self) -> None:
        assert self.served is not None
        self.served.loop.call_soon_threadsafe(self._end)
        self.join(10)
        assert not self.is_alive(), "the server did not stop"

    def _end(self) -> None:
        assert self.served is not None
        self.served.house.stopping.set()
        self._server.stop()


@pytest.fixture(scope="module")
def _served() -> Iterator[Served]:
    thread = Thread()
    yield thread.begin()
    thread.stop()


@pytest.fixture(scope="module")
def guarded() -> Iterator[Served]:
    """Asks for the token ``s3cret``."""
    thread = Thread(token="s3cret")
    yield thread.begin()
    thread.stop()


@pytest.fixture
def served(_served: Served) -> Served:
    """Holds nothing yet."""
    _served.do(_served.house.empty())
    return _served
