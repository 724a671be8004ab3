"""Binding an address, so that a taken port is an error at start and not a surprise later."""

from __future__ import annotations

import socket

from controlplane.errors import Code, TrimtabError

BACKLOG = 4096  # a storm of reconnects waits here; the kernel's own limit may be lower


def bind(address: str, setting: str) -> socket.socket:
    """Listen on ``address`` (HOST:PORT, port 0: any). Raises SETTINGS, naming ``setting``, when it cannot be bound."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Not SO_REUSEPORT: two servers on one port by accident must be an error, not a coin toss.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((host, int(port)))
        bound.listen(BACKLOG)  # from here on a caller waits rather than being refused, and the port is ours
    except OSError as error:
        bound.close()
        raise TrimtabError(
            Code.SETTINGS,
            f"{setting} {address} cannot be bound: {error}",
            hint="another process may hold the port: choose another one, or port 0 for any",
        ) from None
    bound.setblocking(False)
    return bound
