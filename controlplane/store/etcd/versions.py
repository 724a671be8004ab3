"""What is known of etcd's versions and matters here."""

from __future__ import annotations

import re

Version = tuple[int, int, int]


def parse(version: str) -> Version:
    """``"3.5.16"`` as ``(3, 5, 16)``; zeros when it cannot be read."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)


def progress_in_order(version: str) -> bool:
    """Whether an answer to a request for progress is kept in order with the events before it.

    Older servers answer past the events that are still on their way (etcd issue 15220).
    """
    parsed = parse(version)
    return (3, 4, 25) <= parsed < (3, 5, 0) or parsed >= (3, 5, 8)


def hazard(version: str) -> str:
    """Why this version must not keep anything of worth; empty when nothing is known against it."""
    if (3, 5, 0) <= parse(version) < (3, 5, 3):
        return f"etcd {version} can lose acknowledged writes when it is killed: use it for development only"
    return ""
