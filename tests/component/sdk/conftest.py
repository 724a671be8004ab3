"""A fake server of real gRPC, and meshes that are closed when the test is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from trimtab import Mesh

from tests.support.fake_mesh import FakeMesh

Until = Callable[[Callable[[], object]], None]
MakeMesh = Callable[..., Mesh]


def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Poll until ``condition`` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def server() -> Iterator[FakeMesh]:
    with FakeMesh() as fake:
        yield fake


@pytest.fixture
def make_mesh(tmp_path: Path) -> Iterator[MakeMesh]:
    """Make meshes with a snapshot directory of the test's own; they are closed at the end, with all their threads."""
    made: list[Mesh] = []
    before = set(threading.enumerate())

    def make(*servers: FakeMesh | str, **options: Any) -> Mesh:
        addresses = [s if isinstance(s, str) else s.address for s in servers]
        options.setdefault("snapshot_dir", tmp_path / "snapshots")
        # By latency an endpoint whose only call was held up would not be picked for a minute.
        options.setdefault("algorithm", "round_robin")
        mesh = Mesh(addresses, load=lambda: (0.25, 0.5), **options)
        made.append(mesh)
        return mesh

    yield make
    for mesh in made:
        mesh.close()
    left = [t.name for t in set(threading.enumerate()) - before if t.name.startswith("trimtab")]
    assert not left, f"threads left behind: {left}"


@pytest.fixture
def mesh(make_mesh: MakeMesh, server: FakeMesh) -> Mesh:
    return make_mesh(server)
