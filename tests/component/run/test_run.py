"""`trimtab run` around real programs, against a mesh server of real gRPC."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from trimtab.v1.types_pb2 import HEALTH_DRAINING, HEALTH_HEALTHY, HEALTH_UNHEALTHY, Endpoint, Error

from tests.component.sdk_http.fleet import DEADLINE, free_port, until
from tests.support.fake_mesh import FakeMesh

# Serves its port; /health answers by the file "sick" beside it; writes what it is told to the file "told".
PROGRAM = r"""
import http.server, json, os, pathlib, signal, sys
here, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
def end(signum, frame):
    (here / "told").write_text(signal.Signals(signum).name)
    if not (here / "stubborn").exists():
        os._exit(7)
signal.signal(signal.SIGTERM, end)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if (here / "sick").exists() else 200)
        self.end_headers()
    def log_message(self, *args): return
(here / "started").write_text(json.dumps({"pid": os.getpid(), "by": os.environ["TRIMTAB_REGISTERED_BY"]}))
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Run:
    """One `python -m trimtab.run` and what it left in its directory."""

    def __init__(self, control: FakeMesh, here: Path, *options: str, command: list[str] | None = None) -> None:
        self.control = control
        self.here = here
        self.port = free_port()
        program = [sys.executable, "-c", PROGRAM, str(here), str(self.port)]
        self.log = here / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "trimtab.run", "--service", "orders", "--port", str(self.port)),
                    *("--address", "127.0.0.1", "--interval", "100ms", *options),
                    *(["--", *(program if command is None else command)] if command != [] else []),
                ],
                env={**os.environ, "TRIMTAB_SERVERS": control.address, "TRIMTAB_TOKEN": ""},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def endpoint(self) -> Endpoint | None:
        return self.control.store.endpoints.get("default/orders", {}).get(f"127.0.0.1-{self.port}")

    def is_(self, health: int) -> None:
        until(
            lambda: self.endpoint is not None and self.endpoint.health == health,
            f"health {health}; {self.log.read_text()}",
        )

    @property
    def program(self) -> dict[str, object]:
        started = self.here / "started"
        until(lambda: started.exists() and started.read_text(), "the program started")
        return dict(json.loads(started.read_text()))

    @property
    def pid(self) -> int:
        pid = self.program["pid"]
        assert isinstance(pid, int)
        return pid

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        with suppress(OSError, ValueError):  # it never started, or is gone
            os.kill(int(json.loads((self.here / "started").read_text())["pid"]), signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def control() -> Iterator[FakeMesh]:
    with FakeMesh() as control:
        yield control


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    runs: list[Run] = []
    yield runs
    for run in runs:
        run.end()


def test_a_program_is_registered_checked_and_drained_and_its_status_passed_on(
    control: FakeMesh, tmp_path: Path, runs: list[Run]
) -> None:
    options = ("--check", "http:///health", "--drain", "700ms", "--metadata", "version=2", "--weight", "7")
    run = Run(control, tmp_path, *options)
    runs.append(run)
    run.is_(HEALTH_HEALTHY)
    assert run.endpoint is not None
    assert (run.endpoint.weight, dict(run.endpoint.metadata)) == (7, {"version": "2"})
    assert run.program["by"] == "run"

    (tmp_path / "sick").touch()
    run.is_(HEALTH_UNHEALTHY)
    (tmp_path / "sick").unlink()
    run.is_(HEALTH_HEALTHY)

    run.process.send_signal(signal.SIGTERM)
    run.is_(HEALTH_DRAINING)
    assert not (tmp_path / "told").exists()
    assert alive(run.pid)
    assert run.process.wait(DEADLINE) == 7
    assert (tmp_path / "told").read_text() == "SIGTERM"
    assert run.endpoint is None


def test_a_program_that_dies_is_out_at_once_and_started_again(
    control: FakeMesh, tmp_path: Path, runs: list[Run]
) -> None:
    run = Run(control, tmp_path, "--drain", "0s")
    runs.append(run)
    run.is_(HEALTH_HEALTHY)
    first = run.pid
    os.kill(first, signal.SIGKILL)
    run.is_(HEALTH_UNHEALTHY)
    run.is_(HEALTH_HEALTHY)
    assert run.pid != first
    assert "ended with status 137, starts again in" in run.log.read_text()


def test_a_program_that_ends_well_is_not_started_again(control: FakeMesh, tmp_path: Path, runs: list[Run]) -> None:
    run = Run(control, tmp_path, command=[sys.executable, "-c", "raise SystemExit(0)"])
    runs.append(run)
    assert run.process.wait(DEADLINE) == 0
    assert run.endpoint is None


@pytest.mark.parametrize("restart", ["never", "on-failure", "always"])
def test_a_command_that_does_not_exist_is_told_like_a_shell_does_and_not_started_again(
    control: FakeMesh, tmp_path: Path, runs: list[Run], restart: str
) -> None:
    run = Run(control, tmp_path, "--restart", restart, command=["no-such-command"])
    runs.append(run)
    assert run.process.wait(DEADLINE) == 127
    assert "trimtab run: no-such-command: No such file or directory" in run.log.read_text()
    assert run.endpoint is None


@pytest.mark.parametrize("text", ["#!/no/such/interpreter", "no program"])
def test_a_file_that_is_no_program_is_not_started_again(
    control: FakeMesh, tmp_path: Path, runs: list[Run], text: str
) -> None:
    program = tmp_path / "program"
    program.write_text(text)
    program.chmod(0o755 if text.startswith("#!") else 0o644)
    run = Run(control, tmp_path, command=[str(program)])
    runs.append(run)
    assert run.process.wait(DEADLINE) == (127 if text.startswith("#!") else 126)
    assert f"trimtab run: {program}: " in run.log.read_text()


def test_a_program_that_itself_ends_with_127_is_started_again(
    control: FakeMesh, tmp_path: Path, runs: list[Run]
) -> None:
    run = Run(control, tmp_path, "--drain", "0s", command=["sh", "-c", "exit 127"])
    runs.append(run)
    until(lambda: "ended with status 127, starts again in" in run.log.read_text(), "it is started again")


def test_a_stubborn_program_is_killed_after_its_deadline(control: FakeMesh, tmp_path: Path, runs: list[Run]) -> None:
    (tmp_path / "stubborn").touch()
    run = Run(control, tmp_path, "--drain", "0s", "--stop-timeout", "300ms")
    runs.append(run)
    run.is_(HEALTH_HEALTHY)
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(DEADLINE) == 128 + signal.SIGKILL
    assert (tmp_path / "told").read_text() == "SIGTERM"


def test_an_impatient_second_signal_skips_the_drain(control: FakeMesh, tmp_path: Path, runs: list[Run]) -> None:
    run = Run(control, tmp_path, "--drain", "1h")
    runs.append(run)
    run.is_(HEALTH_HEALTHY)
    run.process.send_signal(signal.SIGINT)
    run.is_(HEALTH_DRAINING)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(DEADLINE) == 7


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells children of their parent's death")
def test_a_program_dies_with_its_supervisor(control: FakeMesh, tmp_path: Path, runs: list[Run]) -> None:
    run = Run(control, tmp_path)
    runs.append(run)
    run.is_(HEALTH_HEALTHY)
    pid = run.pid
    run.process.kill()
    until(lambda: not alive(pid), "the program is gone")
    assert (tmp_path / "told").read_text() == "SIGTERM"


def test_a_program_runs_although_the_control_plane_is_away(control: FakeMesh, tmp_path: Path, runs: list[Run]) -> None:
    port = control.port
    control.stop()
    run = Run(control, tmp_path, "--drain", "0s")
    runs.append(run)
    assert alive(run.pid)
    with FakeMesh(port=port) as back:
        run.control = back
        run.is_(HEALTH_HEALTHY)
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(DEADLINE) == 7


def test_without_a_command_somebody_elses_program_is_registered(
    control: FakeMesh, tmp_path: Path, runs: list[Run]
) -> None:
    run = Run(control, tmp_path, "--drain", "300ms", command=[])
    runs.append(run)
    run.is_(HEALTH_UNHEALTHY)  # nobody listens yet: starting
    with socket.create_server(("127.0.0.1", run.port)):
        run.is_(HEALTH_HEALTHY)
        run.process.send_signal(signal.SIGTERM)
        run.is_(HEALTH_DRAINING)
        assert run.process.wait(DEADLINE) == 0
    assert run.endpoint is None


def test_a_refusal_is_told_with_its_code_and_the_program_runs_on(
    control: FakeMesh, tmp_path: Path, runs: list[Run]
) -> None:
    control.refusals["default/orders"] = Error(code="instance.invalid", message="no such zone")
    run = Run(control, tmp_path, "--drain", "0s")
    runs.append(run)
    until(lambda: "instance.invalid: no such zone" in run.log.read_text(), "the refusal is told")
    assert alive(run.pid)
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(DEADLINE) == 7


def test_settings_that_cannot_work_are_refused_before_anything_starts(
    control: FakeMesh, tmp_path: Path, runs: list[Run]
) -> None:
    run = Run(control, tmp_path, "--namespace", "a/b")
    runs.append(run)
    assert run.process.wait(DEADLINE) == 2
    assert "settings.invalid" in run.log.read_text()
    assert not (tmp_path / "started").exists()
