"""Calls that go by the load that instances report: real servers, replica and etcd, under a policy that is applied meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from trimtab import Mesh
from trimtab.core.balancing.load_weight import BLACKOUT
from trimtab.servers.asgi import MeshServer
from trimtab.servers.grpc import MeshInterceptor

from tests.e2e.test_calls_under_policies import applied
from tests.support.town.plugin import Build
from tests.unit.serving.served import asgi_server

POLICY = "{balance: {algorithm: round_robin, weights: load}}"
METHOD = "/shop.Orders/Get"


class Machine:
    """Uses so many seconds of its CPU for a call, and says how much of it was in use since it was asked before."""

    def __init__(self, cost: float) -> None:
        self.cost = cost
        self.calls = 0
        self._asked = time.monotonic(), 0

    def work(self) -> None:
        self.calls += 1

    def __call__(self) -> tuple[float, float]:
        now, calls = time.monotonic(), self.calls
        (before, calls_before), self._asked = self._asked, (now, calls)
        return (calls - calls_before) * self.cost / max(now - before, 0.001), 0.0


@contextmanager
def over_http(machine: Machine, mesh: Mesh) -> Iterator[int]:
    """The port of a server over HTTP."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            machine.work()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

    with asgi_server(MeshServer(app, mesh, "orders")) as url:
        yield int(url.rpartition(":")[2])


@contextmanager
def over_grpc(machine: Machine, mesh: Mesh) -> Iterator[int]:
    """The port of a server over gRPC."""

    def get(request: bytes, context: Any) -> bytes:
        machine.work()
        return b""

    handler = grpc.method_handlers_generic_handler("shop.Orders", {"Get": grpc.unary_unary_rpc_method_handler(get)})
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, interceptors=[MeshInterceptor(mesh, "orders")])
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait()


@contextmanager
def calling_http(mesh: Mesh) -> Iterator[Callable[[], str]]:
    """What makes a call, and returns who answered."""
    with mesh.http_client() as http:
        yield lambda: http.get("mesh://orders/").extensions["trimtab"].endpoint.id


@contextmanager
def calling_grpc(mesh: Mesh) -> Iterator[Callable[[], str]]:
    """The same over gRPC."""
    with mesh.grpc_channel("orders") as channel:
        get = channel.unary_unary(METHOD)
        yield lambda: get.with_call(b"")[1].trimtab.endpoint.id


@pytest.mark.parametrize(
    ("serving", "calling"), [(over_http, calling_http), (over_grpc, calling_grpc)], ids=["http", "grpc"]
)
def test_an_instance_that_needs_twice_as_much_for_a_call_gets_half_as_many(
    towns: Build, tmp_path: Path, serving: Any, calling: Any
) -> None:
    town = towns()
    town.add_replicas(1)
    with ExitStack() as stack:
        for name, cost in (("swift", 0.001), ("slow", 0.002)):
            machine = Machine(cost)
            mesh = stack.enter_context(Mesh(town.servers, snapshot=False, load=machine))
            port = stack.enter_context(serving(machine, mesh))
            mesh.register("orders", port, address="127.0.0.1", id=name)
        shopper = stack.enter_context(Mesh(town.servers, name="shopper", snapshot=False))
        shopper.callee("orders").when(lambda callee: len(callee.state.healthy) == 2).result(10)
        call = stack.enter_context(calling(shopper))
        applied(town, tmp_path, POLICY)

        # Nobody is believed before the blackout is over: plain turns.
        assert abs(calls(call, 100)["swift"] - 50) <= 1
        deadline = time.monotonic() + 4 * BLACKOUT
        while not 95 <= (shares := calls(call, 150))["swift"] <= 105:
            assert time.monotonic() < deadline, f"still {shares}"


def calls(call: Callable[[], str], number: int) -> Counter[str]:
    """Who answers so many calls, which are made at an easy pace."""
    answered: Counter[str] = Counter()
    for _ in range(number):
        answered[call()] += 1
        time.sleep(0.005)
    return answered
