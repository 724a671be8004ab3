"""What every test may use: real etcd servers, one for the whole run, and a key prefix of one's own."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from controlplane.store.embedded import EmbeddedEtcd
from tests.support.core import kind_of_core
from tests.support.etcd import default_binary, etcd_binaries

Servers = Callable[[Path], EmbeddedEtcd]
EtcdFactory = Callable[..., Awaitable[EmbeddedEtcd]]


def pytest_configure() -> None:
    # A shell without job control has what runs in its background ignore interrupts, and so would the programs under test.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Nobody here calls the internet, and an HTTP client that reads every certificate authority takes tens of milliseconds
    # to make: there are none in this folder. Tests of TLS name their own authority.
    os.environ.pop("SSL_CERT_FILE", None)
    os.environ["SSL_CERT_DIR"] = os.path.dirname(__file__)


def pytest_collection_finish() -> None:
    # What was imported and collected stays until the end: no later collection of garbage has to look at it again.
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    versions = [f"{version} ({path})" for version, path in etcd_binaries().items()]
    return f"etcd: {', '.join(versions) or 'none found'}; core of the SDK: {kind_of_core()}"


@pytest.fixture(scope="session")
def etcd_servers() -> Iterator[Servers]:
    """Starts one server for each binary that is asked for, on an event loop that outlives the tests' own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="etcd servers")
    thread.start()
    running: dict[Path, EmbeddedEtcd] = {}

    def server(binary: Path) -> EmbeddedEtcd:
        if binary not in running:
            etcd = EmbeddedEtcd(binary=binary)
            asyncio.run_coroutine_threadsafe(etcd.start(), loop).result(timeout=30)
            running[binary] = etcd
        return running[binary]

    try:
        yield server
    finally:
        for etcd in running.values():
            asyncio.run_coroutine_threadsafe(etcd.stop(), loop).result(timeout=30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()


@pytest.fixture(scope="session")
def etcd(etcd_servers: Servers) -> EmbeddedEtcd:
    """A running etcd, shared by all tests: keep to your ``mesh_prefix`` and don't kill it."""
    return etcd_servers(default_binary())


@pytest.fixture
async def etcd_factory() -> AsyncIterator[EtcdFactory]:
    """``await etcd_factory(**options)`` starts an etcd of one's own, to be treated as badly as one likes."""
    async with AsyncExitStack() as stack:

        async def start(**options: object) -> EmbeddedEtcd:
            etcd = EmbeddedEtcd(**options)  # type: ignore[arg-type]
            await etcd.start()
            stack.push_async_callback(etcd.stop)
            return etcd

        yield start


@pytest.fixture
def mesh_prefix() -> str:
    """A key prefix that no other test has."""
    return f"test/{uuid.uuid4().hex[:12]}"
