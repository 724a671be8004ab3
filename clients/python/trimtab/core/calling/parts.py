"""What pipelines are composed of: what may keep a call back, what learns from it, and what it is repeated by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from trimtab.core.backoff import Rng
from trimtab.core.calling.statistics import Statistics
from trimtab.core.clock import Clock
from trimtab.core.crew import Crew
from trimtab.core.endpoints import Tally
from trimtab.core.retrying.budget import RetryBudget
from trimtab.core.retrying.conditions import Outcome, Retryable
from trimtab.core.retrying.schedule import Schedule

if TYPE_CHECKING:
    from trimtab.core.calling.call import Call


class Gate(Protocol):
    """Something that may keep a call from being sent.

    ``section``: the policy section that it comes from. ``waits``: calls may have to wait for it. ``holds``: a call that was
    sent has something of it until it is over; if not, only a call that was let in and not sent has to ``leave``.
    """

    section: str
    waits: bool
    holds: bool

    def enter(self, call: Call, now: float) -> float:
        """Let a call in. Returns for how many seconds it has to wait first. Raises the refusal that its caller gets."""
        ...

    def leave(self, call: Call, now: float) -> None:
        """The call is over, or was refused further on."""
        ...


class Learner(Protocol):
    """Something that learns from every attempt."""

    def learn(self, call: Call, outcome: Outcome, seconds: float, now: float) -> None:
        """An attempt of ``call`` came to ``outcome`` after ``seconds``."""
        ...


class Lock(Protocol):
    """A lock that its holder may take again, as ``threading.RLock``."""

    def acquire(self) -> bool:
        """Take it."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...

    def __enter__(self) -> bool:
        """Take it."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all pipelines of one service share. ``nobody`` makes the error of a call that finds no endpoint.

    ``clock`` and ``crew`` are for those who drive the calls; a pipeline is told the time.
    """

    service: str
    lock: Lock
    rng: Rng
    tallies: dict[str, Tally]
    nobody: Callable[[], Exception]
    statistics: Statistics
    clock: Clock
    crew: Crew


@dataclass(frozen=True, slots=True)
class Retrying:
    """How attempts are repeated. Without a ``schedule`` only what was never sent is, at once and elsewhere."""

    retryable: Retryable
    attempts: int = 1
    schedule: Schedule | None = None
    budget: RetryBudget | None = None
