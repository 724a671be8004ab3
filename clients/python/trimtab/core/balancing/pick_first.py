"""One endpoint for all calls, until it goes away."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.core.backoff import Rng
from trimtab.core.endpoints import Endpoint


class PickFirst:
    """Stays with the endpoint that was chosen last, else chooses one at random, so that callers spread over all of them.

    ``favourites`` has the ids that were chosen, the latest last. It belongs to the service, and so outlives the picker.
    """

    __slots__ = ("_endpoint",)

    def __init__(self, endpoints: Sequence[Endpoint], favourites: dict[str, None], rng: Rng) -> None:
        self._endpoint: Endpoint | None = None
        if endpoints:
            known = {endpoint.id: endpoint for endpoint in endpoints if endpoint.id in favourites}
            latest = next((id_ for id_ in reversed(favourites) if id_ in known), None)
            chosen = known[latest] if latest is not None else endpoints[int(rng.random() * len(endpoints))]
            favourites.pop(chosen.id, None)
            favourites[chosen.id] = None
            self._endpoint = chosen

    def pick(self, now: float, key: int | None = None) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none."""
        return self._endpoint
