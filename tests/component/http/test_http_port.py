from __future__ import annotations

import contextlib
import socket
import threading

import httpx

from tests.component.http.conftest import Served, Thread

INSTANCES = "/v1/namespaces/default/services/orders/instances"


def test_a_watch_over_a_real_connection_streams_and_ends_with_the_server() -> None:
    thread = Thread()
    served = thread.begin()
    served.do(served.house.register())
    lines: list[str] = []
    with httpx.stream("GET", f"{served.url}{INSTANCES}?watch=true", timeout=10, trust_env=False) as answer:
        stream = answer.iter_lines()
        while not (lines and lines[-1].startswith("data:")):
            lines.append(next(stream))
        assert lines[1] == "event: snapshot"
        served.do(served.house.register(id="b"))
        while "event: change" not in lines:
            lines.append(next(stream))
        stopping = threading.Thread(target=thread.stop)
        stopping.start()
        lines += list(stream)  # ends by itself, not by an error
        stopping.join(10)
    assert not stopping.is_alive()


def test_garbage_on_the_port_disturbs_nobody(served: Served) -> None:
    for garbage in (
        b"\x00" * 4096,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as raw:
            raw.sendall(garbage)
            raw.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while raw.recv(4096):
                    continue
    assert httpx.get(f"{served.url}/readyz", trust_env=False).status_code == 200


def test_an_oversized_body_is_refused_and_its_connection_closed(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as raw:
        raw.sendall(b"PUT /v1/namespaces/default/configs/a/b HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999\r\n\r\n")
        answer = b""
        while chunk := raw.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"request.too_large" in answer


def test_requests_follow_one_another_on_one_connection(served: Served) -> None:
    with httpx.Client(base_url=served.url, trust_env=False) as client:
        for _ in range(5):
            assert client.get("/v1/namespaces").status_code == 200
            assert client.put("/v1/namespaces/default/configs/a/b", json={"nonsense": 1}).status_code == 400
