"""One process of the town: on a leash, with a log, and gone when its test is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from tests.support.town import leash

T = TypeVar("T")

ROOT = Path(__file__).parents[3]
# How long a busy machine may take for anything that should take no time.
PATIENCE = 30.0
LOG_TAIL = 2500


def until(condition: Callable[[], T | None], what: str, *, patience: float = PATIENCE) -> T:
    """The first truth that ``condition`` tells, polled. Raises AssertionError after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while True:
        if found := condition():
            return found
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.05)


class Process:
    """Starts ``command`` from the main thread; output goes to ``log``, which later starts of the same name go on with."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        piped: bool = False,
    ) -> None:
        """``piped``: standard input and output are pipes of text lines; the log then holds standard error alone."""
        self.name = name
        self.log = log
        # A mesh that this shell is set up for is not the test's.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRIMTAB_")}
        with log.open("ab") as output:
            self.popen: subprocess.Popen[str] = subprocess.Popen(
                [sys.executable, "-IS", leash.__file__, str(os.getpid()), *command],
                cwd=ROOT,
                env=inherited | {"PYTHONUNBUFFERED": "1"} | dict(environment or {}),
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output,
                stderr=output,
                text=True,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        """It runs, or is frozen."""
        return self.popen.poll() is None

    def send(self, number: signal.Signals) -> float:
        """Send a signal; when that was, by the clock that all processes share."""
        self.popen.send_signal(number)
        return time.monotonic()

    def kill(self) -> float:
        """SIGKILL, and its end; when that was."""
        moment = self.send(signal.SIGKILL)
        self.popen.wait(PATIENCE)
        return moment

    def freeze(self) -> float:
        return self.send(signal.SIGSTOP)

    def thaw(self) -> float:
        return self.send(signal.SIGCONT)

    def end(self, number: signal.Signals = signal.SIGTERM, patience: float = PATIENCE) -> int:
        """Ask it to go, and wait; its exit status."""
        self.send(number)
        try:
            return self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} did not end within {patience:g} s of {number.name}\n{self.tail()}"
            ) from None

    def clear(self) -> None:
        """End it and whatever it left in its process group, whatever state it is in."""
        with suppress(ProcessLookupError):  # all of it is gone
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(PATIENCE)
        for pipe in (self.popen.stdin, self.popen.stdout):
            _close(pipe)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-LOG_TAIL:]


def _close(pipe: IO[str] | None) -> None:
    if pipe is not None:
        with suppress(BrokenPipeError):  # nobody reads what was still to be written
            pipe.close()
