"""One check of a program: does its port accept, does its page answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Check:
    """Where to look: a TCP port, and an HTTP path on it when ``path`` is set.

    ``any_status``: whatever answer in HTTP will do, and only to become ready: afterwards the port is looked at, because a
    server that is merely busy still accepts.
    """

    host: str
    port: int
    path: str | None = None
    any_status: bool = False

    def __str__(self) -> str:
        kind = "tcp" if self.path is None else f"GET {self.path}"
        return f"{kind} on {self.host}:{self.port}"

    def once_ready(self) -> Check:
        """The check that keeps a program ready."""
        return Check(self.host, self.port) if self.any_status else self

    async def passes(self, timeout: float) -> bool:
        """Whether it answers within ``timeout`` seconds: accepts, or says a status that will do (200 to 399, or any)."""
        try:
            async with asyncio.timeout(timeout):
                return await self._look()
        except (OSError, TimeoutError, ValueError):
            return False

    async def _look(self) -> bool:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            if self.path is None:
                return True
            writer.write(
                f"GET {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
                "User-Agent: trimtab-run\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode("ascii")
            )
            version, status, *_ = (await reader.readline()).decode("latin-1").split(" ")
            return version.startswith("HTTP/") and (self.any_status or 200 <= int(status) < 400)
        finally:
            writer.close()
            with suppress(OSError):  # the peer may have reset it; it was only a check
                await writer.wait_closed()


def parse_check(text: str, host: str, port: int) -> Check | None:
    """The check that ``--check`` asks for: "tcp", "http", "http:///healthz", "http://HOST:PORT/healthz", or "none".

    What the URL leaves out is ``host`` and ``port``. Raises ValueError for anything else.
    """
    if text == "none":
        return None
    if text == "tcp":
        return Check(host, port)
    if text == "http":
        return Check(host, port, "/", any_status=True)
    url = urlsplit(text)
    if url.scheme != "http" or url.username or url.fragment:
        raise ValueError(f"{text!r} is no check: write tcp, http, http:///healthz, http://HOST:PORT/healthz or none")
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return Check(url.hostname or host, url.port or port, path)
