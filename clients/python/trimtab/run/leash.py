"""Starts a command that dies with its parent: ``python leash.py PARENT-PID REPORT COMMAND …``. Linux.

``REPORT`` is a file descriptor to tell on why the command could not be started. Nothing is told when it could.

The kernel's PR_SET_PDEATHSIG must be set between fork and exec. A process with threads cannot safely run Python there, so
that this small program stands in between; it imports nothing of the mesh, to be quick.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, signum: int) -> None:
    """Have ``signum`` delivered to this process when its parent dies; it stays set across exec. Linux, elsewhere nothing."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        # The parent died before the kernel was asked.
        os.kill(os.getpid(), signum)


def main() -> None:
    """Tie this process to its parent and become the command."""
    parent, report, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    os.set_inheritable(report, False)
    die_with_parent(parent, signal.SIGTERM)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command is the user's own
    except OSError as error:
        os.write(report, str(error.errno).encode())


if __name__ == "__main__":
    main()
