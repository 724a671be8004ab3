"""What a supervisor decides: whether the program is healthy, and whether and when to start it again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trimtab.core.backoff import Rng

# A program that ran this long was well: its next failure starts the back-off anew. Seconds.
STEADY_AFTER = 30.0

# What shells say of a command that does not exist, and of one that cannot be run.
NOT_FOUND, NOT_EXECUTABLE = 127, 126


class Verdict(Enum):
    """What the checks say of the program; the values are the states of a registration."""

    STARTING = "starting"
    READY = "serving"
    UNHEALTHY = "unhealthy"


@dataclass(slots=True)
class Checks:
    """Turns single checks into a verdict: ready after ``rise`` successes in a row, unhealthy after ``fall`` failures.

    A program that was never ready is starting, however long that takes, and not unhealthy.
    """

    rise: int = 1
    fall: int = 3
    verdict: Verdict = Verdict.STARTING
    streak: int = 0

    def observe(self, ok: bool) -> Verdict:
        """Take one more check into account."""
        against = ok != (self.verdict is Verdict.READY)
        self.streak = self.streak + 1 if against else 0
        if ok and self.verdict is not Verdict.READY and self.streak >= self.rise:
            self.verdict, self.streak = Verdict.READY, 0
        elif not ok and self.verdict is Verdict.READY and self.streak >= self.fall:
            self.verdict, self.streak = Verdict.UNHEALTHY, 0
        elif not ok and self.verdict is not Verdict.READY:
            self.streak = 0
        return self.verdict


class Restart(Enum):
    """When to start the program again after it ended."""

    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(slots=True)
class Restarts:
    """Decides on restarts: exponential delays from ``base`` up to ``cap`` seconds, half of each at random."""

    policy: Restart
    base: float = 0.5
    cap: float = 30.0
    failures: int = 0

    def after(self, exit_code: int, uptime: float, rng: Rng) -> float | None:
        """Seconds until the next start after an end, None when there is none. ``exit_code`` 0 is success."""
        if self.policy is Restart.NEVER or (self.policy is Restart.ON_FAILURE and exit_code == 0):
            return None
        if uptime >= STEADY_AFTER:
            self.failures = 0
        delay = min(self.cap, self.base * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return delay / 2 + delay / 2 * rng.random()


def exit_status(returncode: int) -> int:
    """What a shell would report: the exit code, or 128 + the number of the signal that killed the program."""
    return returncode if returncode >= 0 else 128 - returncode
