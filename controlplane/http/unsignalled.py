"""uvicorn as a replica wants it: quiet, without a lifespan, and without a hand on the signals."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import Any

import uvicorn
from fastapi import FastAPI

_SHUTDOWN = 2


class Server(uvicorn.Server):
    """Leaves the signals to the replica, which has more to do than to stop HTTP. ``tls``: uvicorn's own names for it."""

    def __init__(self, api: FastAPI, tls: Mapping[str, Any]) -> None:
        super().__init__(
            uvicorn.Config(
                api,
                log_config=None,
                log_level="warning",
                server_header=False,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=_SHUTDOWN,
                **tls,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take none."""
        yield
