"""Starts a program that is killed when we die: ``python -m deploy.demo.leash PARENT-PID PROGRAM ARGUMENT…``.

SIGKILL and not SIGTERM: the demo freezes processes, and a frozen one would never see anything gentler.
"""

from __future__ import annotations

import os
import signal
import sys

from trimtab.run.leash import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]), signal.SIGKILL)
    os.execv(sys.argv[2], sys.argv[2:])
