"""Follows a listing live, through restarts of the server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from controlplane.cli.api import Api
from controlplane.cli.failure import Exit, Failure, say

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0

Items = list[dict[str, Any]]


def follow(api: Api, path: str, params: Mapping[str, Any] | None = None) -> Iterator[tuple[Items, Items]]:
    """What changed and what is gone, again and again; first everything.

    A server that goes away after the first answer is waited for; what changed meanwhile is told on return.
    """
    held: dict[str, dict[str, Any]] = {}
    answered, pause = False, FIRST_PAUSE_S
    while True:
        try:
            for kind, body in api.events(path, params):
                changed, removed = _apply(held, kind, body)
                if changed or removed or not answered:
                    yield changed, removed
                answered, pause = True, FIRST_PAUSE_S
            reason = "the server ended the watch"
        except Failure as failure:
            if not answered or failure.exit_code != Exit.UNREACHABLE:
                raise
            reason = failure.message
        say(f"{reason}; trying again")
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)


def _apply(held: dict[str, dict[str, Any]], kind: str, body: Mapping[str, Any]) -> tuple[Items, Items]:
    if kind == "snapshot":
        listed = {item["name"]: item for item in body["items"]}
        changed = [item for name, item in listed.items() if held.get(name) != item]
        gone = [name for name in held if name not in listed]
    else:
        changed, gone = list(body["changed"]), list(body["removed"])
    removed = [held.pop(name) for name in gone if name in held]
    held.update({item["name"]: item for item in changed})
    return changed, removed
