"""A wire to cut between a client and a replica, while both live on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.link import Link


class Wire:
    """A relay on a thread of its own. Use ``wire(target)``."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self.address = link.endpoint

    def cut(self) -> None:
        """Break what is connected, and let nobody connect again."""
        self._link.refusing = True
        self._loop.call_soon_threadsafe(self._link.cut)


@contextmanager
def wire(target: str) -> Iterator[Wire]:
    """A wire to HOST:PORT, in place while the block lasts."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=f"wire to {target}", daemon=True)
    thread.start()
    link = Link(target)
    asyncio.run_coroutine_threadsafe(link.__aenter__(), loop).result(10)
    try:
        yield Wire(link, loop)
    finally:
        asyncio.run_coroutine_threadsafe(link.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
