"""The fixtures, for pytest. Nothing else is imported until a test asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trimtab.testing.mesh import FakeAsyncMesh, FakeMesh


@pytest.fixture
def fake_mesh() -> Iterator[FakeMesh]:
    """A Mesh without a control plane, in virtual time."""
    from trimtab.testing.mesh import FakeMesh

    with FakeMesh() as mesh:
        yield mesh


@pytest.fixture
def fake_async_mesh() -> Iterator[FakeAsyncMesh]:
    """An AsyncMesh without a control plane, in virtual time. ``fake_async_mesh.sync`` is the same mesh for threads."""
    from trimtab.testing.mesh import FakeAsyncMesh

    mesh = FakeAsyncMesh()
    # Not awaited, so that it serves every way to run asynchronous tests.
    with mesh.sync:
        yield mesh
