"""A caller calls only some endpoints of a large service, others call others.

Source: gRFC A68, random subsetting by rendezvous hashing. When an endpoint comes or goes, each caller's subset changes by
one at most. The seed is the hash of the caller's id, so that the same caller keeps its subset also over a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest

from trimtab.core.balancing.hashing import hash_key
from trimtab.core.endpoints import Endpoint


def subset(endpoints: Sequence[Endpoint], size: int, client_id: str) -> Sequence[Endpoint]:
    """Return ``size`` of the endpoints, or all when there are no more. Raises MissingExtra without xxhash."""
    seed = hash_key(client_id)
    if len(endpoints) <= size:
        return endpoints
    return nsmallest(size, endpoints, key=lambda endpoint: (hash_key(endpoint.target, seed), endpoint.id))
