"""The weights that endpoints have at this moment."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

from trimtab.core.endpoints import Endpoint

Weights = Mapping[str, float]

_WEIGHT = operator.attrgetter("weight")


def weigh(endpoints: Sequence[Endpoint], weights: Weights | None) -> list[float] | None:
    """Return each one's weight: of ``weights`` by id, else its own. None when all weigh the same, as they mostly do."""
    found = [weights.get(e.id, e.weight) for e in endpoints] if weights else list(map(_WEIGHT, endpoints))
    return found if len(set(found)) > 1 else None
