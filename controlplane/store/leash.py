"""Start a program that ends when we do: ``python -IS leash.py PARENT_PID PROGRAM ARGUMENT…``.

Asks Linux to send SIGTERM to this process when its parent dies, however it dies, and becomes PROGRAM; the request
outlives that. It is a program of its own because to ask between fork and exec, as ``preexec_fn`` would, is not safe in
a process that has threads. The signal comes when the *thread* that started us ends: start it from one that lives as
long as the process should. Elsewhere than on Linux, PROGRAM is stopped by whoever started it, or by nobody.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become ``command``, bound to ``parent``."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
            sys.exit(f"cannot bind {command[0]} to process {parent}: {os.strerror(ctypes.get_errno())}")
        # The parent may have died before we asked; then nobody is left to send the signal.
        if os.getppid() != parent:
            sys.exit(f"process {parent} is gone")
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
