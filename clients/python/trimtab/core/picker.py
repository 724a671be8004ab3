"""Whom to call: one interface over all balancing algorithms.

A picker is immutable and made anew for each state of its service; ``pick`` never waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from trimtab.core.backoff import Rng
from trimtab.core.endpoints import Endpoint, ServiceState
from trimtab.core.p2c import LeastRequest
from trimtab.core.round_robin import RoundRobin

Algorithm = Literal["p2c", "round_robin"]
ALGORITHMS: tuple[Algorithm, ...] = ("p2c", "round_robin")


class Picker(Protocol):
    """Chooses an endpoint for each call."""

    def pick(self, rng: Rng) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none."""
        ...


def build_picker(algorithm: Algorithm, state: ServiceState, sequence: Iterator[int]) -> Picker:
    """Return a picker over whom ``state`` lets be called.

    ``sequence`` yields consecutive integers and belongs to the service, so that a rotation goes on where the last picker left it.
    """
    if algorithm == "round_robin":
        return RoundRobin(state.eligible(), sequence)
    return LeastRequest(state.eligible(), state.tallies)
