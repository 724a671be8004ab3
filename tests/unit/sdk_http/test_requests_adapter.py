"""mesh:// through requests."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from trimtab.errors import NoEndpoints
from trimtab.http.requests import adapter
from urllib3 import Timeout

from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at, in_child, origin, refusing_endpoint


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with origin() as port:
        yield port


def session_on(mesh: KnownMesh) -> requests.Session:
    session = requests.Session()
    session.mount("mesh://", adapter(mesh))
    session.mount("http+mesh://", adapter(mesh))
    return session


def test_a_call_goes_to_the_endpoint_that_was_picked_and_keeps_the_name_of_its_service(port: int) -> None:
    mesh = KnownMesh(endpoint_at(port))
    with session_on(mesh) as session:
        answer = session.post("mesh://orders.shop/v1?x=1", data=b"hello")
    seen = answer.json()
    assert (seen["host"], seen["path"], seen["body"]) == ("orders.shop", "/v1?x=1", "hello")
    assert answer.url == "mesh://orders.shop/v1?x=1"
    assert answer.trimtab.endpoint.id == "a"  # type: ignore[attr-defined]
    assert mesh.asked == [("orders", "shop")]
    assert mesh.outcomes == [("a", True)]


def test_parameters_are_prepared_behind_the_prefix_that_requests_knows(port: int) -> None:
    with session_on(KnownMesh(endpoint_at(port))) as session:
        assert session.get("http+mesh://orders/v1", params={"page": "2"}).json()["path"] == "/v1?page=2"


def test_a_refused_connection_moves_on_to_another_endpoint(port: int) -> None:
    mesh = KnownMesh(refusing_endpoint("dead"), refusing_endpoint("dead too"), endpoint_at(port, "alive"))
    with session_on(mesh) as session:
        answer = session.post("mesh://orders/", data=iter([b"one ", b"two"]))
    assert answer.json()["body"] == "one two"
    assert mesh.outcomes == [("dead", False), ("dead too", False), ("alive", True)]


@pytest.mark.parametrize("timeout", [Timeout(connect=1.0, read=2.0), Timeout(total=3.0), Timeout(), (1.0, None), 2.0])
def test_every_form_of_a_timeout_that_requests_knows_is_understood(port: int, timeout: Any) -> None:
    with session_on(KnownMesh(endpoint_at(port))) as session:
        assert session.get("mesh://orders/v1", timeout=timeout).ok


def test_three_refused_connections_end_the_call_and_name_the_endpoints() -> None:
    mesh = KnownMesh(*(refusing_endpoint(f"dead-{n}") for n in range(4)))
    with session_on(mesh) as session, pytest.raises(requests.ConnectionError, match=r"dead-0.*dead-1.*dead-2"):
        session.get("mesh://orders/")
    assert mesh.in_flight == 0


def test_no_endpoint_is_an_error_of_the_mesh_and_of_the_library() -> None:
    with session_on(KnownMesh()) as session, pytest.raises(NoEndpoints, match="no endpoint of orders") as caught:
        session.get("mesh://orders/")
    assert isinstance(caught.value, requests.ConnectionError)
    assert caught.value.service == "orders"
    assert caught.value.request is not None


def test_a_call_is_in_flight_until_its_body_is_read_or_closed(port: int) -> None:
    mesh = KnownMesh(endpoint_at(port))
    with session_on(mesh) as session:
        answer = session.get("mesh://orders/", stream=True)
        assert mesh.in_flight == 1
        assert answer.content
        assert mesh.in_flight == 0
        session.get("mesh://orders/", stream=True).close()
        assert mesh.in_flight == 0
    assert mesh.outcomes == [("a", True), ("a", True)]


def test_a_body_that_breaks_after_status_200_is_a_failed_call(port: int) -> None:
    mesh = KnownMesh(endpoint_at(port))
    with session_on(mesh) as session, pytest.raises(requests.exceptions.ChunkedEncodingError) as caught:
        session.get("mesh://orders/broken")
    assert f"orders at 127.0.0.1:{port}" in "".join(traceback.format_exception(caught.value))
    assert mesh.outcomes == [("a", False)]


def test_a_callers_own_error_while_reading_is_not_the_endpoints_failure(port: int) -> None:
    mesh = KnownMesh(endpoint_at(port))
    with (
        session_on(mesh) as session,
        pytest.raises(KeyError),
        session.get("mesh://orders/", stream=True),
    ):
        raise KeyError("not the endpoint's fault")
    assert mesh.outcomes == [("a", True)]


def test_an_error_that_its_caller_is_just_handling_is_not_the_endpoints_failure(port: int) -> None:
    mesh = KnownMesh(endpoint_at(port))
    with session_on(mesh) as session:
        try:
            raise requests.ConnectionError("elsewhere")
        except requests.ConnectionError as error:
            assert session.get("mesh://orders/").ok
            assert str(error) == "elsewhere"
    assert mesh.outcomes == [("a", True)]


def test_an_answer_that_is_dropped_unread_is_no_longer_in_flight(port: int) -> None:
    mesh = KnownMesh(endpoint_at(port))
    with session_on(mesh) as session:
        assert session.get("mesh://orders/", stream=True).ok
        assert mesh.in_flight == 0
        assert next(session.get("mesh://orders/", stream=True).iter_content(1))
        assert mesh.in_flight == 0
    assert mesh.outcomes == [("a", True), ("a", True)]


def test_another_service_is_not_asked_with_a_body_that_was_sent_already(port: int) -> None:
    mesh = KnownMesh(endpoint_at(port), policy="default: {retry: off, fallback: {service: spare}}")
    with session_on(mesh) as session:
        for body in (iter([b"one ", b"two"]), b"one two"):
            with pytest.raises(requests.ConnectionError):
                session.post("mesh://orders/hangup", data=body)
    assert mesh.asked == [("orders", None), ("orders", None), ("spare", None)]


def test_a_forked_child_uses_connections_of_its_own(port: int) -> None:
    with session_on(KnownMesh(endpoint_at(port))) as session:
        parents = session.get("mesh://orders/").json()["client"]
        assert in_child(lambda: session.get("mesh://orders/").json()["client"]) != parents
        assert session.get("mesh://orders/").json()["client"] == parents


def test_a_server_that_hangs_up_on_what_must_not_be_repeated_is_not_asked_again_and_is_named(port: int) -> None:
    mesh = KnownMesh(endpoint_at(port), endpoint_at(port, "b"))
    with session_on(mesh) as session, pytest.raises(requests.ConnectionError) as caught:
        session.post("mesh://orders/hangup")
    assert caught.value.trimtab.endpoint.port == port  # type: ignore[attr-defined]
    assert any(f"127.0.0.1:{port}" in note for note in caught.value.__notes__)
    assert mesh.outcomes == [("a", False)]


def test_connections_to_an_endpoint_are_kept(port: int) -> None:
    with session_on(KnownMesh(endpoint_at(port))) as session:
        assert len({session.get("mesh://orders/").json()["client"] for _ in range(4)}) == 1


def test_redirects_stay_in_the_mesh(port: int) -> None:
    with session_on(KnownMesh(endpoint_at(port))) as session:
        assert session.get("mesh://orders/moved").json()["path"] == "/new?x=1"
        assert session.get("mesh://orders/relative").json()["path"] == "/new"


@pytest.mark.parametrize("url", ["mesh://orders:80/", "mesh://a.b.c/", "mesh://or_ders/"])
def test_a_url_that_names_no_service_is_refused(url: str) -> None:
    with session_on(KnownMesh()) as session, pytest.raises(requests.exceptions.InvalidURL, match="mesh"):
        session.get(url)


def test_an_adapter_takes_http_or_https_only() -> None:
    with pytest.raises(ValueError, match="'http' or 'https'"):
        adapter(KnownMesh(), scheme="ftp")
