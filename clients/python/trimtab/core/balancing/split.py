"""Traffic by version."""

from __future__ import annotations

from collections.abc import Iterable

from trimtab.core.endpoints import Endpoint
from trimtab.policy.sections import Split


def by_version(endpoints: Iterable[Endpoint], split: Split) -> dict[str, list[Endpoint]]:
    """Return the endpoints of each version that is to have traffic, in the order of the split. Others are left out."""
    found: dict[str, list[Endpoint]] = {version: [] for version, weight in split.weights if weight > 0}
    for endpoint in endpoints:
        version = found.get(endpoint.metadata.get(split.key, ""))
        if version is not None:
            version.append(endpoint)
    return found
