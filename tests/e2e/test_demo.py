"""The demo as it is started: whoever stops it finds nothing left."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil

from tests.support.town.process import Process, until


def of_the_demo(directory: Path) -> list[str]:
    """Command lines of the processes that were told of this directory, or work in it."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if any(word.startswith(str(directory)) for word in told):
            found.append(" ".join(process.cmdline()))
    return found


def test_an_interrupted_demo_leaves_no_process_and_no_file_behind(tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    stage.mkdir()
    command = (sys.executable, "-m", "deploy.demo", "--plain", "--scene", "limit")
    demo = Process("demo", command, log=tmp_path / "demo.log", environment={"TMPDIR": str(stage)})
    try:
        until(lambda: "$ trimtab apply" in demo.log.read_text() or demo.popen.poll() is not None, "it plays")
        assert len(of_the_demo(stage)) >= 8, demo.tail()  # etcd, a control plane, three instances and three shoppers
        # As Ctrl-C, which a shell keeps from what it starts in the background.
        assert demo.end(signal.SIGTERM) == 130, demo.tail()
        assert "Nothing is left behind." in demo.log.read_text()
        until(lambda: not of_the_demo(stage), "its processes are gone")
        assert list(stage.iterdir()) == []
    finally:
        demo.clear()
