"""How many calls are let through: rates, calls under way, and what a server takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trimtab.policy.forms import Choice, Contradiction, Count, Nested, Number, form
from trimtab.policy.quantities import Duration, Rate
from trimtab.policy.routing import HashKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A rate limit of this process: GCRA, which is a token bucket without a clock of its own."""

    rate: float = form(Rate(), 100.0, "Calls that may pass, in the long run.")
    burst: int = form(Count(1), 1, "Calls that may pass at once after a rest.")
    per: str = form(
        Choice(("service", "method", "key")), "service", "What has a limit of its own; key: header or argument."
    )
    key: HashKey | None = form(Nested(HashKey, scalar="header"), None, "For per: key.")
    warm_up: float | None = form(Duration(), None, "From a third of the rate to all of it in this time, after a rest.")
    wait: float = form(Duration(0.0, 60.0), 0.0, "How long a call may wait for its turn instead of being refused.")

    def contradictions(self) -> Iterator[Contradiction]:
        """A limit per key without one, or a key that nothing goes by."""
        if self.per == "key" and self.key is None:
            yield Contradiction("per", "there is no key", "say key: {header: NAME}")
        if self.per != "key" and self.key is not None:
            yield Contradiction("key", f"the limit is per {self.per}", "say per: key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """A concurrency limit that finds itself from latencies (Netflix concurrency-limits)."""

    algorithm: str = form(Choice(("gradient2", "vegas", "aimd")), "gradient2", "How the limit moves.")
    initial: int = form(Count(1, 100_000), 20, "The limit to begin with.")
    low: int = form(Count(1, 100_000), 20, "The limit is never lower.")
    high: int = form(Count(1, 100_000), 200, "The limit is never higher.")

    def contradictions(self) -> Iterator[Contradiction]:
        """Bounds that leave nothing between them, or not what the limit begins with."""
        if self.low > self.high:
            yield Contradiction("low", f"{self.low} is more than high, {self.high}", "say both")
        elif not self.low <= self.initial <= self.high:
            message = f"{self.initial} is not within {self.low} to {self.high}"
            yield Contradiction("initial", message, "say initial, too")


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """A bulkhead: how many calls may be under way at the same time, from this process to the service."""

    limit: int | None = form(Count(1, 1_000_000), None, "A fixed limit.")
    adaptive: Adaptive | None = form(Nested(Adaptive, scalar="algorithm"), None, "A limit that moves.")

    def contradictions(self) -> Iterator[Contradiction]:
        """No limit, or two."""
        if self.limit is None and self.adaptive is None:
            yield Contradiction("", "says nothing", "say limit or adaptive, or off for no limit")
        if self.limit is not None and self.adaptive is not None:
            yield Contradiction("adaptive", "there is a fixed limit already", "one of the two")


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """Adaptive throttling (Google SRE): refuses here a share of what the callee would refuse anyway."""

    k: float = form(Number(1, 100), 2.0, "Calls allowed for each one that was accepted.")
    window: float = form(Duration(1.0), 30.0, "How long the past counts; longer than the timeout.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What instances of the service do with calls that come in."""

    concurrency: int | None = form(Count(1, 100_000), None, "Calls served at the same time.")
    adaptive: Adaptive | None = form(Nested(Adaptive, scalar="algorithm"), None, "The same, found from latencies.")
    queue: int = form(Count(0, 100_000), 16, "Calls that may wait for their turn, important ones first.")
    wait: float = form(Duration(0.0, 60.0), 0.1, "How long they wait at most.")
    limit: Limit | None = form(Nested(Limit, scalar="rate"), None, "A rate limit of each instance.")

    def contradictions(self) -> Iterator[Contradiction]:
        """No limit at all, or two of the same kind."""
        if self.concurrency is None and self.adaptive is None and self.limit is None:
            yield Contradiction("", "says no limit", "say concurrency, adaptive or limit, or off")
        if self.concurrency is not None and self.adaptive is not None:
            yield Contradiction("adaptive", "there is a fixed concurrency already", "one of the two")
