"""Real servers, ASGI and WSGI: one set of sentences for both."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from trimtab.servers.asgi import MeshServer
from trimtab.servers.wsgi import MeshWsgi

from tests.unit.serving.served import ServedMesh, asgi_server, until, wsgi_server
from tests.unit.serving.shop import Shop

ONE_PLACE = "default: {server: {concurrency: 1, queue: 2, wait: 20s}}"
NO_QUEUE = "default: {server: {concurrency: 1, queue: 0}}"


class House:
    """A shop that is open to HTTP, and customers who do not wait for each other."""

    def __init__(self, url: str, shop: Shop, mesh: ServedMesh, http: httpx.Client, pool: ThreadPoolExecutor) -> None:
        self.url, self.shop, self.mesh, self.http = url, shop, mesh, http
        self._pool = pool

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(self.url + path, headers={f"trimtab-{k.replace('_', '-')}": v for k, v in headers.items()})

    def start(self, path: str, **headers: str) -> Future[httpx.Response]:
        return self._pool.submit(self.get, path, **headers)

    def hold_the_only_place(self) -> Future[httpx.Response]:
        held = self.start("/hold?name=first")
        until(lambda: self.shop.served == ["first"])
        return held

    @contextmanager
    def raw(self, request: bytes) -> Iterator[socket.socket]:
        """A customer without manners."""
        where = urlsplit(self.url)
        with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
            connection.sendall(request)
            yield connection


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def house_of(kind: str, mesh: Any, **options: Any) -> Iterator[House]:
    shop = Shop()
    server = (
        asgi_server(MeshServer(shop.asgi(), mesh, "orders", **options))
        if kind == "asgi"
        else wsgi_server(MeshWsgi(shop.wsgi, mesh, "orders", **options))
    )
    # A connection for each call: uvicorn closes one after an exception.
    limits = httpx.Limits(max_keepalive_connections=0)
    with server as url, httpx.Client(timeout=15, limits=limits) as http, ThreadPoolExecutor(8) as pool:
        try:
            yield House(url, shop, mesh, http, pool)
        finally:
            shop.open.set()


@pytest.fixture
def house(kind: str) -> Iterator[House]:
    mesh = ServedMesh()
    with house_of(kind, mesh) as house:
        yield house
        house.shop.open.set()
        until(lambda: mesh.at_rest)


def test_calls_inherit_the_time_and_the_importance_that_their_caller_gives_them(house: House) -> None:
    told = house.get("/tell", timeout_ms="5000", priority="high").json()
    assert 4.0 < told["left"] <= 5.0
    assert told["priority"] == "high"
    assert house.get("/tell").json() == {"left": None, "priority": ""}


def test_calls_inherit_that_they_are_copies_and_hand_nothing_on(house: House) -> None:
    assert house.get("/tell", timeout_ms="5000", mirrored="1").json()["mirrored"]
    assert "mirrored" not in house.get("/tell", timeout_ms="5000").json()


def test_what_is_made_while_the_answer_is_sent_inherits_too(house: House) -> None:
    house.shop.open.set()
    last = json.loads(house.get("/stream", timeout_ms="5000", priority="low").text.splitlines()[-1])
    assert 4.0 < last["left"] <= 5.0
    assert last["priority"] == "low"


@pytest.mark.parametrize("timeout", ["soon", "-5", "1.5", "9" * 40, ""])
def test_what_is_no_timeout_or_priority_is_as_if_not_said(house: House, timeout: str) -> None:
    assert house.get("/tell", timeout_ms=timeout, priority="utmost").json() == {"left": None, "priority": ""}


def test_a_call_whose_time_is_over_is_refused_without_being_served(house: House) -> None:
    answer = house.get("/hold", timeout_ms="0")
    assert answer.status_code == 504
    assert answer.json()["code"] == "call.deadline_exceeded"
    assert "retry-after" not in answer.headers
    assert house.shop.served == []


def test_a_call_that_finds_no_place_is_told_when_to_come_back(house: House) -> None:
    house.mesh.enact(NO_QUEUE)
    held = house.hold_the_only_place()
    answer = house.get("/hold?name=second")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["code"] == "call.overloaded"
    assert "default/orders" in answer.json()["message"]
    assert int(answer.headers["retry-after"]) >= 1
    house.shop.open.set()
    assert held.result().text == "held"
    assert house.shop.served == ["first"]


def test_whoever_comes_back_when_told_to_is_within_the_rate(house: House) -> None:
    house.mesh.enact("default: {server: {limit: {rate: 30/m}}}")
    assert house.get("/tell").status_code == 200
    answer = house.get("/tell")
    assert answer.status_code == 429
    assert answer.json()["code"] == "call.rate_limited"
    assert answer.headers["retry-after"] == "2"


def test_a_refusal_of_head_has_no_body_that_the_next_call_would_read(house: House) -> None:
    asked = b"HEAD /hold HTTP/1.1\r\nHost: orders\r\ntrimtab-timeout-ms: 0\r\nConnection: close\r\n\r\n"
    with house.raw(asked) as connection, connection.makefile("rb") as answer:
        head, _, body = answer.read().partition(b"\r\n\r\n")
    assert b" 504 " in head
    assert body == b""


def test_important_calls_are_served_first_and_unimportant_ones_refused_first(house: House) -> None:
    house.mesh.enact(ONE_PLACE)
    first = house.hold_the_only_place()
    low = house.start("/hold?name=low", priority="low")
    until(lambda: house.mesh.waiting == 1)
    normal = house.start("/hold?name=normal")
    until(lambda: house.mesh.waiting == 2)
    critical = house.start("/hold?name=critical", priority="critical")
    assert low.result().status_code == 503
    house.shop.open.set()
    assert [call.result().status_code for call in (first, normal, critical)] == [200] * 3
    assert house.shop.served == ["first", "critical", "normal"]


def test_who_waits_no_longer_than_its_deadline_is_told_that_it_is_over(house: House) -> None:
    house.mesh.enact(ONE_PLACE)
    house.hold_the_only_place()
    answer = house.get("/hold?name=late", timeout_ms="50")
    assert answer.status_code == 504
    assert house.shop.served == ["first"]


def test_a_changed_policy_holds_for_those_that_wait_already(house: House) -> None:
    house.mesh.enact(ONE_PLACE)
    house.hold_the_only_place()
    second = house.start("/hold?name=second")
    until(lambda: house.mesh.waiting == 1)
    house.mesh.enact("default: {server: {concurrency: 2, queue: 0}}")
    until(lambda: house.shop.served == ["first", "second"])
    assert house.get("/tell").status_code == 503
    house.mesh.enact(None)
    assert house.get("/tell").status_code == 200
    house.shop.open.set()
    assert second.result().text == "held"


def test_a_body_arrives_whole_although_its_call_had_to_wait(house: House) -> None:
    house.mesh.enact(ONE_PLACE)
    held = house.hold_the_only_place()
    body = bytes(range(256)) * 2000
    answer: Future[httpx.Response] = Future()
    sender = threading.Thread(
        target=lambda: answer.set_result(house.http.post(f"{house.url}/echo", content=body)), daemon=True
    )
    sender.start()
    until(lambda: house.mesh.waiting == 1)
    house.shop.open.set()
    assert answer.result(10).content == body
    assert held.result().status_code == 200


def test_a_stream_holds_its_place_until_its_end(house: House) -> None:
    house.mesh.enact(NO_QUEUE)
    with house.http.stream("GET", f"{house.url}/stream") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "first"
        assert house.get("/tell").status_code == 503
        house.shop.open.set()
        assert [line for line in lines if line]
    until(lambda: house.mesh.at_rest)
    assert house.get("/tell").status_code == 200


def test_a_client_that_vanishes_while_it_reads_gives_its_place_back(house: House) -> None:
    house.mesh.enact(NO_QUEUE)
    with house.raw(b"GET /stream HTTP/1.1\r\nHost: orders\r\n\r\n") as connection:
        assert connection.recv(10)
        assert house.get("/tell").status_code == 503
    until(lambda: house.mesh.at_rest)


def test_an_exception_of_the_application_gives_its_place_back(house: House) -> None:
    house.mesh.enact(NO_QUEUE)
    assert [house.get("/fail").status_code for _ in range(2)] == [500, 500]


def test_health_is_told_whatever_else_is_going_on(house: House) -> None:
    house.mesh.enact(NO_QUEUE)
    house.hold_the_only_place()
    assert house.get("/tell").status_code == 503
    assert house.get("/healthz").status_code == 200


def test_what_is_exempt_can_be_said(kind: str) -> None:
    with house_of(kind, ServedMesh(NO_QUEUE), exempt=("/tell",)) as house:
        house.hold_the_only_place()
        assert house.get("/tell").status_code == 200
        assert house.get("/healthz").status_code == 503


def test_calls_are_counted_while_they_are_served_and_while_they_wait(house: House) -> None:
    house.mesh.enact(ONE_PLACE)
    house.hold_the_only_place()
    house.start("/hold?name=second")
    until(lambda: house.mesh.waiting == 1)
    assert int(house.mesh.serving) == 2
    house.shop.open.set()
    until(lambda: int(house.mesh.serving) == 0)


def test_a_policy_goes_by_path_and_header(house: House) -> None:
    house.mesh.enact("""
routes:
  - match: {path: /ho*, header: {trimtab-tenant: noisy}}
    server: {limit: {rate: 1/m}}
""")
    house.shop.open.set()
    assert [house.get("/hold", tenant="noisy").status_code for _ in range(2)] == [200, 429]
    assert [house.get("/hold", tenant="other").status_code for _ in range(2)] == [200, 200]
    assert [house.get("/tell", tenant="noisy").status_code for _ in range(2)] == [200, 200]


# Load reports


ASKING = {"endpoint-load-metrics-format": "TEXT"}
LOAD = "endpoint-load-metrics"


def asked(house: House, path: str = "/tell") -> str | None:
    """What an answer tells of the load, to a caller that wants to know."""
    told: str | None = house.http.get(house.url + path, headers=ASKING).headers.get(LOAD)
    return told


def test_an_answer_tells_of_the_load_if_it_is_asked_to(house: House) -> None:
    assert LOAD not in house.get("/tell").headers
    assert not house.mesh.load_meter.counting
    assert asked(house) == "TEXT cpu_utilization=0.25,mem_utilization=0.5"
    house.shop.open.set()
    assert asked(house, "/stream") == "TEXT cpu_utilization=0.25,mem_utilization=0.5"
    assert LOAD not in house.get("/tell").headers


def test_from_the_first_question_on_every_call_is_counted(house: House) -> None:
    asked(house)
    for _ in range(8):
        house.get("/tell")
    house.get("/fail")
    until(lambda: house.mesh.at_rest)
    house.mesh.load_clock.advance(5.0)
    assert asked(house) == "TEXT rps_fractional=2,eps=0.2,cpu_utilization=0.25,mem_utilization=0.5"


def test_a_call_with_a_deadline_or_a_place_is_counted_as_any_other(house: House) -> None:
    house.mesh.enact(ONE_PLACE)
    asked(house)
    house.get("/tell", timeout_ms="5000")
    until(lambda: house.mesh.at_rest)
    house.mesh.load_clock.advance(2.0)
    assert asked(house) == "TEXT rps_fractional=1,cpu_utilization=0.25,mem_utilization=0.5"


def test_calls_that_are_refused_and_health_checks_are_none_that_was_served(house: House) -> None:
    house.mesh.enact("default: {server: {limit: {rate: 1/m}}}")
    asked(house)
    assert asked(house) is None
    assert asked(house, "/healthz") is None
    house.mesh.enact(None)
    house.mesh.load_clock.advance(1.0)
    assert asked(house) == "TEXT rps_fractional=1,cpu_utilization=0.25,mem_utilization=0.5"


def test_a_server_may_report_to_everybody(kind: str) -> None:
    with house_of(kind, ServedMesh(), load_reports=True) as house:
        assert house.get("/tell").headers[LOAD] == "TEXT cpu_utilization=0.25,mem_utilization=0.5"
