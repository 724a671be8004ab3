"""Prefork servers: a mesh made before the fork works after it, in the parent and in every child, without sharing anything."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator

import pytest
from trimtab import Mesh, Refused

from tests.component.sdk.conftest import MakeMesh, until
from tests.support.fake_mesh import FakeMesh, endpoint

ORDERS = "default/orders"

SERVER = """
import sys
from tests.support.fake_mesh import FakeMesh, endpoint
with FakeMesh() as server:
    server.store.put("default/orders", endpoint("a"), endpoint("b"))
    print(server.address, flush=True)
    for line in sys.stdin:
        print(" ".join(sorted(server.store.ids("default/web"))), flush=True)
"""


class RemoteFake:
    """A fake mesh in a process of its own: a gRPC server in the process that forks would be forked too."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._answer()

    def registered(self) -> set[str]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return set(self._answer().split())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def remote() -> Iterator[RemoteFake]:
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield RemoteFake(process)
        process.kill()


def in_child(work: Callable[[], None], timeout: float = 20.0) -> None:
    """Fork, do ``work`` in the child, and fail unless it ends well in time."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # the child must never return into the test runner
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    deadline = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hung")
        time.sleep(0.01)


def call(mesh: Mesh) -> str:
    with mesh.pick("orders") as pick:
        return pick.endpoint.id


def test_a_mesh_made_before_the_fork_and_used_after_it(make_mesh: MakeMesh, remote: RemoteFake) -> None:
    mesh = make_mesh(remote.address)

    def work() -> None:
        assert call(mesh) in "ab"
        assert mesh.status().connected
        mesh.close()

    for _ in range(3):
        in_child(work)
    assert not mesh.status().connected
    assert call(mesh) in "ab"


def test_a_mesh_in_use_before_the_fork_works_in_parent_and_children(make_mesh: MakeMesh, remote: RemoteFake) -> None:
    mesh = make_mesh(remote.address)
    registration = mesh.register("web", 9000)
    held = mesh.pick("orders")
    session = mesh.status().session

    def work() -> None:
        # What the parent knew is there at once; the parent's calls, session and registrations are not the child's.
        assert not mesh.status().connected
        assert mesh.in_flight == (0, 0)
        assert call(mesh) in "ab"
        until(lambda: mesh.status().connected)
        assert mesh.status().session == ""
        assert not registration.registered
        registration.deregister()
        with contextlib.suppress(Refused):
            registration.ready()
            raise AssertionError("a child changed its parent's registration")
        own = mesh.register("web", 9001)
        assert own.registered
        mesh.close()

    for _ in range(4):
        in_child(work)
        assert call(mesh) in "ab"
    until(lambda: mesh.status().session_state == "attached")
    assert mesh.status().session == session
    assert registration.registered
    assert remote.registered() == {"127.0.0.1-9000"}
    assert mesh.in_flight == (0, 1)
    held.done()
    registration.deregister()
    assert remote.registered() == set()


def test_a_child_that_dies_takes_nothing_of_its_parent_away(make_mesh: MakeMesh, remote: RemoteFake) -> None:
    mesh = make_mesh(remote.address)
    mesh.register("web", 9000)

    def work() -> None:
        mesh.subscribe("orders")
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        work()
    os.waitpid(child, 0)
    until(lambda: mesh.status().session_state == "attached")
    assert remote.registered() == {"127.0.0.1-9000"}


def test_configuration_read_before_the_fork_stays_live_in_the_child(make_mesh: MakeMesh, remote: RemoteFake) -> None:
    mesh = make_mesh(remote.address)
    config = mesh.config("orders/app", default={"rate": 1})

    def work() -> None:
        assert config.value == {"rate": 1}
        until(lambda: mesh.status().connected)

    in_child(work)


def test_a_watch_begun_before_the_fork_goes_on_in_a_child_that_uses_the_mesh(
    make_mesh: MakeMesh, remote: RemoteFake
) -> None:
    mesh = make_mesh(remote.address)
    seen: list[set[str]] = []
    mesh.watch("orders", lambda state: seen.append(set(state.endpoints)))
    until(lambda: seen)

    def work() -> None:
        seen.clear()
        call(mesh)
        until(lambda: seen == [{"a", "b"}])

    in_child(work)


def test_starting_a_program_does_not_disturb_the_stream(make_mesh: MakeMesh, server: FakeMesh) -> None:
    server.store.put(ORDERS, endpoint("a"))
    mesh = make_mesh(server)
    call(mesh)
    subprocess.run([sys.executable, "-c", ""], check=True)
    assert mesh.status().connects == 1
    assert mesh.status().connected
