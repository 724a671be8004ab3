"""A mesh for tests: without a control plane, without a network, in virtual time.

``FakeMesh`` and ``FakeAsyncMesh`` are a ``Mesh`` and an ``AsyncMesh``: what decides about calls is what decides in production.
pytest has them as the fixtures ``fake_mesh`` and ``fake_async_mesh``, without a line of set-up.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.testing.clock import FakeClock as FakeClock
    from trimtab.testing.mesh import FakeAsyncMesh as FakeAsyncMesh
    from trimtab.testing.mesh import FakeMesh as FakeMesh
    from trimtab.testing.script import NobodyAnswers as NobodyAnswers
    from trimtab.testing.script import Reply as Reply
    from trimtab.testing.script import Request as Request

# Imported on first use: pytest loads the plugin beside this for every test suite, whether or not it calls services.
_HOMES = {
    "FakeAsyncMesh": "trimtab.testing.mesh",
    "FakeClock": "trimtab.testing.clock",
    "FakeMesh": "trimtab.testing.mesh",
    "NobodyAnswers": "trimtab.testing.script",
    "Reply": "trimtab.testing.script",
    "Request": "trimtab.testing.script",
}

__all__ = ["FakeAsyncMesh", "FakeClock", "FakeMesh", "NobodyAnswers", "Reply", "Request"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'trimtab.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
