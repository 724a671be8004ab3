"""One channel per endpoint: when it is made, when it is given up, and what forks do to it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from trimtab.calling.in_use import IDLE
from trimtab.core.endpoints import Endpoint, Tally
from trimtab.discovery import Callee
from trimtab.grpc.alarms import Alarms
from trimtab.grpc.method import Method
from trimtab.grpc.subchannels import SubChannel, SubChannels

from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at


class Channels:
    """Makes channels that are only names, and notes which were closed."""

    def __init__(self, *, quiet: bool = True) -> None:
        self.made: list[str] = []
        self.closed: list[str] = []
        self.all: SubChannels[str] = SubChannels(
            self._make, self.closed.append, lambda: ValueError("closed"), quiet=quiet
        )

    def _make(self, endpoint: Endpoint) -> str:
        self.made.append(endpoint.target)
        return endpoint.target

    def to(self, endpoint: Endpoint, callee: Callee, now: float, *, in_flight: bool = False) -> SubChannel[str]:
        """A call is sent there, and over at once or ``in_flight``."""
        tally = Tally()
        tally.in_flight = int(in_flight)
        return self.all.to(endpoint, tally, callee, now)


A, B = endpoint_at(1, "a"), endpoint_at(2, "b")


def test_a_channel_is_made_once_for_each_address() -> None:
    channels, callee = Channels(), KnownMesh(A, B).service
    first = channels.to(A, callee, 0.0)
    assert channels.to(A, callee, 0.0) is first
    assert channels.to(B, callee, 0.0) is not first
    assert channels.to(endpoint_at(1, "a", scheme="https"), callee, 0.0) is not first
    assert channels.made == ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1"]


def test_a_channel_that_was_not_used_for_a_minute_is_closed() -> None:
    channels, callee = Channels(), KnownMesh(A, B).service
    channels.to(A, callee, 0.0)
    busy = Tally()
    busy.in_flight = 1
    channels.all.to(B, busy, callee, 0.0)
    channels.all.sweep(IDLE)
    assert channels.closed == []
    channels.all.sweep(IDLE + 1)
    assert channels.closed == ["127.0.0.1:1"]
    busy.in_flight = 0
    # Calls look for themselves, every ten seconds.
    channels.to(A, callee, IDLE + 2)
    channels.to(A, callee, IDLE + 12)
    assert channels.closed == ["127.0.0.1:1", "127.0.0.1:2"]


def test_a_channel_to_an_endpoint_that_is_gone_or_moved_is_closed() -> None:
    mesh = KnownMesh(A, B)
    channels = Channels()
    for endpoint in (A, B):
        channels.to(endpoint, mesh.service, 0.0)
    mesh.service.swap(KnownMesh(endpoint_at(3, "b")).service.state)
    channels.all.sweep(1.0)
    assert sorted(channels.closed) == ["127.0.0.1:1", "127.0.0.1:2"]
    assert len(channels.all) == 0


def test_a_channel_in_use_stays_although_its_endpoint_is_gone() -> None:
    mesh, channels = KnownMesh(A), Channels()
    channels.to(A, mesh.service, 0.0, in_flight=True)
    mesh.service.swap(KnownMesh().service.state)
    channels.all.sweep(1.0)
    assert channels.closed == []


def test_a_newer_stub_works_with_a_release_of_grpc_that_knows_nothing_of_registered_methods() -> None:
    class Older:
        def unary_unary(
            self, method: str, request_serializer: object = None, response_deserializer: object = None
        ) -> str:
            return f"older {method}"

    class Newer:
        def unary_unary(
            self, method: str, serializer: object = None, deserializer: object = None, _registered_method: bool = False
        ) -> str:
            return f"newer {method} {_registered_method}"

    method = Method("unary_unary", "/shop.Orders/Charge", None, None, True, ())
    assert method.on(Older()) == "older /shop.Orders/Charge"
    assert method.on(Newer()) == "newer /shop.Orders/Charge True"


def test_no_channel_is_made_after_the_end() -> None:
    channels, callee = Channels(), KnownMesh(A).service
    channels.to(A, callee, 0.0)
    assert channels.all.drain() == ["127.0.0.1:1"]
    told = []
    for _ in range(2):
        with pytest.raises(ValueError, match="closed") as raised:
            channels.to(A, callee, 0.0)
        told.append(raised.value)
    assert told[0] is not told[1], "an error of its own for each caller"


def test_grpc_is_still_while_the_process_forks_and_the_child_makes_channels_of_its_own() -> None:
    channels, callee = Channels(), KnownMesh(A, B).service
    channels.to(A, callee, 0.0)
    busy = channels.to(B, callee, 0.0, in_flight=True)
    assert channels.all.before_fork()
    assert channels.closed == ["127.0.0.1:1"]
    assert not channels.all.before_fork()
    channels.all.after_fork_in_parent()
    assert channels.to(B, callee, 0.0) is busy
    channels.all.after_fork_in_child()
    assert channels.to(B, callee, 0.0) is not busy
    # Not even closed: that would speak on the parent's connection.
    assert channels.closed == ["127.0.0.1:1"]
    assert not Channels(quiet=False).all.before_fork()


FORKING = """
import os, sys
from google.protobuf.wrappers_pb2 import StringValue
from tests.unit.sdk_grpc.shop import OrdersStub
from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at
from trimtab.grpc.blocking import channel

stub = OrdersStub(channel(KnownMesh(endpoint_at(int(sys.argv[1]))), "orders"))
assert stub.Charge(StringValue(value="before"), timeout=20).value == "a before"
child = os.fork()
assert stub.Charge(StringValue(value="after"), timeout=20).value == "a after"
if child == 0:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_channel_made_before_a_fork_works_after_it_in_the_parent_and_in_the_child() -> None:
    from tests.unit.sdk_grpc.shop import serving

    with serving("a") as shop:
        done = subprocess.run(
            [sys.executable, "-c", FORKING, str(shop.port)],
            timeout=60, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(shop.seen) == 3


def test_alarms_go_off_in_the_order_of_their_times_and_not_when_cancelled() -> None:
    alarms, told, last = Alarms(), [], threading.Event()
    second = alarms.after(0.3, lambda: told.append("second"))
    alarms.after(0.4, last.set)
    alarms.after(0.2, lambda: told.append("first"))
    alarms.after(0.25, lambda: told.append("never")).cancel()
    assert last.wait(10)
    assert told == ["first", "second"]
    second.cancel()


def test_an_alarm_that_fails_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    alarms, went_on = Alarms(), threading.Event()

    def fail() -> None:
        raise LookupError("mine")

    alarms.after(0.0, fail)
    alarms.after(0.0, went_on.set)
    assert went_on.wait(10)
    assert "mine" in caplog.text


FORKED_ALARMS = """
import os, threading
from trimtab.grpc.alarms import Alarms
alarms, rang = Alarms(), threading.Event()
alarms.after(60.0, rang.set)
child = os.fork()
if child == 0:
    alarms.after(0.0, rang.set)
    os._exit(0 if rang.wait(10) else 1)
assert os.waitpid(child, 0)[1] == 0, "no alarm went off in the child"
"""


def test_alarms_go_off_in_a_forked_child_although_the_parents_thread_is_not_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED_ALARMS],
        timeout=60, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
