"""Commands in this process, and as processes of their own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.cli import root
from tests.component.http.conftest import Served

Run = Callable[..., int]


@pytest.fixture
def trimtab(served: Served, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("TRIMTAB_HTTP", served.url)
    for name in ("TRIMTAB_TOKEN", "TRIMTAB_NAMESPACE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(*args: str, stdin: bytes | None = None) -> int:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return root.main(root.build(serve=_never, dev=_never), args)

    return run


class watching:  # noqa: N801 - reads as the verb it is
    """A command that goes on, as a process of its own."""

    def __init__(self, *args: str, url: str) -> None:
        environment = {**os.environ, "TRIMTAB_HTTP": url, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "controlplane", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        overdue = threading.Timer(20, self.process.kill)
        overdue.start()
        try:
            text = self.process.stdout.readline()
        finally:
            overdue.cancel()
        assert text, f"the command ended: {self.process.stderr.read() if self.process.stderr else ''}"
        return text.rstrip("\n")

    def __enter__(self) -> watching:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)


def _never(file: Path | None, flags: dict[str, str]) -> int:
    raise AssertionError("no server is started here")
