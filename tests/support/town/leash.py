"""Starts a program that is killed when we die: ``python -IS leash.py PARENT-PID PROGRAM ARGUMENT…``. Linux.

SIGKILL and not SIGTERM: tests freeze processes, and a frozen one would never see anything gentler. It imports next to
nothing, because it stands before every process of a test.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(f"process {parent} died before its child was tied to it")
    os.execv(command[0], command)
