"""What needs an extra is imported only when it is asked for, and says which extra it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = """
import sys
from trimtab import Mesh, AsyncMesh, Hooks
import trimtab.grpc.blocking, trimtab.grpc.awaiting
heavy = sorted(name for name in sys.modules if name.partition(".")[0] in ("prometheus_client", "opentelemetry"))
raise SystemExit(", ".join(heavy) or 0)
"""


def test_a_mesh_imports_neither_prometheus_nor_opentelemetry() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("module", "needs", "extra"),
    [
        ("trimtab.prometheus", "prometheus_client", "trimtab[prometheus]"),
        ("trimtab.opentelemetry", "opentelemetry", "trimtab[opentelemetry]"),
    ],
)
def test_a_missing_extra_is_named(module: str, needs: str, extra: str) -> None:
    program = f"import sys; sys.modules[{needs!r}] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"pip install '{extra}'" in done.stderr
