"""Calls to endpoints as clients reported them last: how many, how they fared, and who keeps away from whom."""

from __future__ import annotations

from typing import NamedTuple

# Of those that eject an endpoint, so many are told by name.
MAX_NAMED = 5


class Traffic(NamedTuple):
    """Calls to one endpoint: those of one client, or of ``callers`` together, who then have no names here.

    Rates a second. ``seconds``: latencies of the calls that ended in a second, all together. ``ejecting``: clients whose
    outlier detection keeps calls away, ``ejected_by`` the names of some of their programs. ``age``: seconds since the
    oldest of the reports. ``replica``: who tells, empty for all.
    """

    node: str
    caller: str
    caller_namespace: str
    replica: str
    namespace: str
    service: str
    endpoint: str
    callers: int
    calls: float
    failures: float
    seconds: float
    in_flight: int
    ejecting: int
    ejected_by: tuple[str, ...]
    age: float

    @property
    def latency(self) -> float | None:
        """Mean seconds of the calls that ended; None: none did."""
        return self.seconds / self.calls if self.calls else None

    @property
    def failure_ratio(self) -> float:
        """Share of the calls that failed, 0 to 1."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def place(self) -> tuple[str, ...]:
        """What it is of: no two in a listing are of the same."""
        return (
            self.namespace, self.service, self.endpoint, self.caller_namespace, self.caller, self.node, self.replica,
        )  # fmt: skip

    @property
    def rank(self) -> tuple[object, ...]:
        """Worst first: ejected, failing, busy."""
        return -self.ejecting, -self.failures, -self.calls, -self.in_flight, self.place

    def plus(self, other: Traffic) -> Traffic:
        """Both together."""
        named = self.ejected_by
        if other.ejected_by:
            named = tuple(sorted({*named, *other.ejected_by})[:MAX_NAMED])
        return Traffic(
            *self[:7],
            callers=self.callers + other.callers,
            calls=self.calls + other.calls,
            failures=self.failures + other.failures,
            seconds=self.seconds + other.seconds,
            in_flight=self.in_flight + other.in_flight,
            ejecting=self.ejecting + other.ejecting,
            ejected_by=named,
            age=max(self.age, other.age),
        )


class Sums:
    """Calls to each endpoint, of all callers together, told by ``replica``."""

    def __init__(self, replica: str = "") -> None:
        self._replica = replica
        self._by_endpoint: dict[tuple[str, str, str], Traffic] = {}

    def add(self, one: Traffic) -> None:
        """Count it in."""
        key = one.namespace, one.service, one.endpoint
        held = self._by_endpoint.get(key)
        if held is None:
            self._by_endpoint[key] = one._replace(node="", caller="", caller_namespace="", replica=self._replica)
        else:
            self._by_endpoint[key] = held.plus(one)

    def told(self) -> list[Traffic]:
        """One entry for each endpoint."""
        return list(self._by_endpoint.values())
