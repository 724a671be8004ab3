"""``trimtab run``: hands over to the SDK's runner. Standard library only: it works without the server's extra."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def hand_over(args: Sequence[str]) -> NoReturn:
    """Become ``python -m trimtab.run ARGS``, in the same process, so that signals reach it unchanged."""
    command = [sys.executable, "-m", "trimtab.run", *args]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":  # exec there returns to the shell at once
        import subprocess

        sys.exit(subprocess.call(command))
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted
