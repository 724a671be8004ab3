"""The caller's own zone first."""

from __future__ import annotations

from collections.abc import Iterable

from trimtab.core.endpoints import Endpoint


def by_zone(endpoints: Iterable[Endpoint], zone: str) -> tuple[list[Endpoint], list[Endpoint]]:
    """Return who is in ``zone``, and who is elsewhere: two levels, of which the second takes over by ``priority_load``."""
    here: list[Endpoint] = []
    elsewhere: list[Endpoint] = []
    for endpoint in endpoints:
        (here if endpoint.zone == zone else elsewhere).append(endpoint)
    return here, elsewhere
