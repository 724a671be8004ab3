"""``balance: {weights: load}`` in virtual time: endpoints are asked, and calls go by what they tell."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import requests
from trimtab import Hooks
from trimtab.testing import FakeAsyncMesh, FakeMesh, Reply

LOADED = "default: {balance: {algorithm: round_robin, weights: load}, retry: off}"
URL = "mesh://orders/"


class Fleet:
    """Two instances; what each tells of its load when it is asked."""

    def __init__(self, mesh: Any, policy: str = LOADED, tells: bool = True) -> None:
        self.mesh = mesh
        self.tells = tells
        self.asked: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.status = 200
        self.cpu = {"light": 0.4, "busy": 0.8}
        mesh.add("orders", "light:80", "busy:80")
        mesh.policy("orders", policy)
        mesh.respond("orders", self._answer)

    def _answer(self, request: Any) -> Reply:
        host = request.endpoint.address
        self.served[host] += 1
        headers = {}
        if "endpoint-load-metrics-format" in request.headers:
            self.asked[host] += 1
            if self.tells:
                headers["endpoint-load-metrics"] = f"TEXT rps_fractional=100,cpu_utilization={self.cpu[host]}"
        return Reply(status=self.status, headers=headers)

    def shares(self) -> dict[str, int]:
        """Who served since the last time."""
        served, self.served = dict(self.served), Counter()
        return served

    def settled_shares(self, http: Any, after: float) -> dict[str, int]:
        """Who serves the calls of ten seconds, ``after`` so many others."""
        self.keep_calling(http, after)
        self.shares()
        self.keep_calling(http, 10)
        return self.shares()

    def keep_calling(self, http: Any, seconds: float, each_second: int = 30) -> None:
        for _ in range(int(seconds * each_second)):
            http.get(URL)
            self.mesh.clock.advance(1 / each_second)


def test_after_the_blackout_calls_go_by_reported_load(fake_mesh: FakeMesh) -> None:
    fleet = Fleet(fake_mesh)
    with fake_mesh.http_client() as http:
        fleet.keep_calling(http, 9)
        assert fleet.shares() == {"light": 135, "busy": 135}
        assert fleet.settled_shares(http, after=3) == {"light": 200, "busy": 100}
        fleet.cpu["light"] = 1.6
        assert fleet.settled_shares(http, after=3) == {"light": 100, "busy": 200}


def test_each_instance_is_asked_once_a_second(fake_mesh: FakeMesh) -> None:
    fleet = Fleet(fake_mesh)
    with fake_mesh.http_client() as http:
        fleet.keep_calling(http, 10)
    assert all(9 <= asked <= 11 for asked in fleet.asked.values())
    assert len(fleet.asked) == 2


def test_without_reports_it_is_plain_round_robin(fake_mesh: FakeMesh) -> None:
    fleet = Fleet(fake_mesh, tells=False)
    with fake_mesh.http_client() as http:
        fleet.keep_calling(http, 15)
    assert fleet.shares() == {"light": 225, "busy": 225}


def test_weights_are_forgotten_when_reports_stop(fake_mesh: FakeMesh) -> None:
    fleet = Fleet(fake_mesh)
    with fake_mesh.http_client() as http:
        fleet.keep_calling(http, 15)
        fleet.tells = False
        fleet.keep_calling(http, 185, each_second=2)
        fleet.shares()
        fleet.keep_calling(http, 2)
        assert fleet.shares() == {"light": 30, "busy": 30}


def test_nobody_is_asked_where_no_policy_goes_by_load(fake_mesh: FakeMesh) -> None:
    fleet = Fleet(fake_mesh, policy="default: {balance: round_robin}")
    with fake_mesh.http_client() as http:
        fleet.keep_calling(http, 2)
        assert not fleet.asked
        fake_mesh.policy("orders", LOADED)
        http.get(URL)
        assert fleet.asked.total() == 1
        fake_mesh.policy("orders", "default: {balance: round_robin}")
        fleet.asked.clear()
        fleet.keep_calling(http, 2)
        assert not fleet.asked


def test_a_change_of_another_section_keeps_the_weights(fake_mesh: FakeMesh) -> None:
    fleet = Fleet(fake_mesh)
    with fake_mesh.http_client() as http:
        fleet.keep_calling(http, 13)
        fake_mesh.policy("orders", LOADED.replace("retry: off", "timeout: 3s"))
        fleet.shares()
        fleet.keep_calling(http, 10)
        assert fleet.shares() == {"light": 200, "busy": 100}


def test_an_answer_that_failed_tells_of_its_load_too(fake_mesh: FakeMesh) -> None:
    fleet = Fleet(fake_mesh)
    fleet.status = 503
    with fake_mesh.http_client() as http:
        assert fleet.settled_shares(http, after=13) == {"light": 200, "busy": 100}


def test_a_guarded_function_goes_by_what_other_calls_heard(fake_mesh: FakeMesh) -> None:
    fleet = Fleet(fake_mesh)
    with fake_mesh.http_client() as http:
        fleet.keep_calling(http, 13)

    @fake_mesh.guard("orders")
    def fetch(endpoint: Any) -> str:
        return str(endpoint.address)

    assert Counter(fetch() for _ in range(30)) == {"light": 20, "busy": 10}
    with fake_mesh.pick("orders") as pick:
        assert pick.call.dispatch is not None
        assert not pick.call.dispatch.asks_load


def test_hooks_hear_of_all_calls_beside() -> None:
    class Ends(Hooks):
        def __init__(self) -> None:
            self.heard: Counter[str] = Counter()

        def call_started(self, call: Any) -> None:
            self.heard["started"] += 1

        def attempt_started(self, call: Any, dispatch: Any) -> None:
            self.heard["sent"] += 1
            dispatch.headers["x-hook"] = "1"

        def attempt_ended(self, call: Any, dispatch: Any, outcome: Any) -> None:
            self.heard[dispatch.status] += 1

        def call_ended(self, call: Any, error: Any) -> None:
            self.heard["ended"] += 1

        def fallback_served(self, call: Any) -> None:
            self.heard["fallback"] += 1

    hooks = Ends()
    with FakeMesh(hooks=[hooks]) as mesh, mesh.http_client() as http:
        fleet = Fleet(mesh, LOADED.replace("retry: off", "retry: off, fallback: {value: {}}"))
        http.get(URL)
        fleet.status = 500
        assert http.get(URL).status_code == 200
        assert fleet.asked.total() == 2
    assert hooks.heard == {"started": 2, "sent": 2, "ended": 2, "200": 1, "500": 1, "fallback": 1}


@pytest.mark.parametrize("policy", [LOADED, LOADED.replace("retry: off", "hedge: 10s")], ids=["alone", "hedged"])
async def test_every_http_library_asks_and_listens(policy: str) -> None:
    async with FakeAsyncMesh() as mesh:
        fleet = Fleet(mesh, policy)
        async with mesh.http_client() as http, mesh.aiohttp_session() as session:
            with mesh.sync.http_client() as blocking, requests.Session() as adapted:
                adapted.mount("mesh://", mesh.sync.requests_adapter())

                async def call() -> None:
                    await http.get(URL)
                    async with session.get(URL) as answer:
                        await answer.read()
                    blocking.get(URL)
                    adapted.get(URL)

                for library in range(4):
                    # So that each of them is the first of a second, once for each endpoint.
                    for _ in range(library):
                        await call_one(library, http, session, blocking, adapted)
                    mesh.clock.advance(1.0)
                    before = fleet.asked.total()
                    await call_one(library, http, session, blocking, adapted)
                    await call_one(library, http, session, blocking, adapted)
                    assert fleet.asked.total() == before + 2
                for _ in range(200):
                    await call()
                    mesh.clock.advance(0.1)
                fleet.shares()
                for _ in range(75):
                    await call()
                    mesh.clock.advance(0.01)
        assert fleet.shares() == {"light": 200, "busy": 100}


async def call_one(library: int, http: Any, session: Any, blocking: Any, adapted: Any) -> None:
    if library == 0:
        await http.get(URL)
    elif library == 1:
        async with session.get(URL) as answer:
            await answer.read()
    elif library == 2:
        blocking.get(URL)
    else:
        adapted.get(URL)
