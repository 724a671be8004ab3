"""When to stop calling: circuit breakers and the ejection of outliers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trimtab.policy.forms import Choice, Contradiction, Count, Nested, Number, form
from trimtab.policy.quantities import Duration, Share
from trimtab.policy.sentences import OpenWhen, read_open_when


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """A circuit breaker: refuses calls that would most likely fail, and lets a few try whether it is over."""

    scope: str = form(Choice(("endpoint", "service", "method")), "endpoint", "What has a circuit of its own.")
    open_when: OpenWhen = form(
        Nested(OpenWhen, sentence=read_open_when),
        OpenWhen(failures=0.5, minimum=20, seconds=10.0),
        'When to open: "failures >= 50% of 20 in 10s", "slow(1s) >= 80% of 20 in last 100", "5 in a row".',
    )
    open_for: float = form(
        Duration(), 15.0, "How long it stays open the first time; longer when it opens again at once."
    )
    open_limit: float = form(Duration(), 120.0, "How long it stays open at most, give or take a fifth.")
    probes: int = form(Count(1, 100), 3, "Calls that try, half-open, whether it is over.")
    probe_deadline: float = form(
        Duration(), 10.0, "After this time a probe that does not end gives its place to another."
    )
    force: str | None = form(Choice(("open", "closed")), None, "An operator's will: never let through, or never judge.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessRate:
    """Ejects what is worse than the others by ``stdev`` standard deviations (gRFC A50)."""

    stdev: float = form(Number(0.1, 10), 1.9, "mean - stdev * standard deviation is the least that is good enough.")
    hosts: int = form(Count(1, 10_000), 5, "Endpoints with enough calls that are needed to compare.")
    volume: int = form(Count(1), 100, "Calls in an interval that an endpoint needs to be judged.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePercentage:
    """Ejects what fails more often than a fixed share (gRFC A50)."""

    threshold: float = form(Share(), 0.85, "Failures of more than this share.")
    hosts: int = form(Count(1, 10_000), 5, "Endpoints with enough calls that are needed to judge at all.")
    volume: int = form(Count(1), 50, "Calls in an interval that an endpoint needs to be judged.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """Outlier detection: endpoints that behave worse than the others get no calls for a while."""

    consecutive: int | None = form(
        Count(1, 1000),
        5,
        "Failures in a row that eject at once, unless most endpoints fail. null: not judged.",
        optional=True,
    )
    success_rate: SuccessRate | None = form(Nested(SuccessRate), None, "Compare with the others, each interval.")
    failure_percentage: FailurePercentage | None = form(
        Nested(FailurePercentage), None, "Judge each by itself, each interval."
    )
    interval: float = form(
        Duration(0.01), 10.0, "How often rates are compared, and how soon a good endpoint is forgiven."
    )
    eject_for: float = form(Duration(), 30.0, "How long for the first time; n times as long for the nth.")
    eject_limit: float = form(Duration(), 300.0, "How long at most.")
    max_ejected: float = form(Share(), 0.1, "Share of endpoints that may be ejected at the same time; one may always.")

    def contradictions(self) -> Iterator[Contradiction]:
        """Nothing that endpoints are judged by."""
        if self.consecutive is None and self.success_rate is None and self.failure_percentage is None:
            yield Contradiction(
                "consecutive", "nothing is judged", "say consecutive, success_rate or failure_percentage, or off"
            )
