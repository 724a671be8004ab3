"""What mesh URLs name."""

from __future__ import annotations

import pytest
from trimtab.http.target import Target, endpoint_scheme, mesh_location, parse_target


@pytest.mark.parametrize(
    ("authority", "target"),
    [
        ("orders", Target("orders")),
        ("orders.shop", Target("orders", "shop")),
        ("ORDERS.Shop", Target("orders", "shop")),
        ("user:secret@orders", Target("orders")),
        ("0-1", Target("0-1")),
    ],
)
def test_an_authority_names_a_service_and_perhaps_a_namespace(authority: str, target: Target) -> None:
    assert parse_target(authority) == target


@pytest.mark.parametrize("authority", ["", ".", "a.", ".a", "a.b.c", "a_b", "-a", "a" * 64, "orders:80", "[::1]"])
def test_anything_else_is_refused_with_what_was_expected(authority: str) -> None:
    with pytest.raises(ValueError, match="mesh"):
        parse_target(authority)


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("http://orders/v2/", "mesh://orders/v2/"),
        ("https://orders/v2?a=1#b", "mesh://orders/v2?a=1#b"),
        ("/v2", "mesh://orders/v2"),
        ("next", "mesh://orders/v1/next"),
        ("mesh://payments/v1", "mesh://payments/v1"),
        ("https://example.org/login", "https://example.org/login"),
        ("http://[bad/", "http://[bad/"),
    ],
)
def test_a_redirect_to_the_service_itself_stays_in_the_mesh(location: str, seen: str) -> None:
    assert mesh_location(location, "mesh://orders/v1/42") == seen


def test_the_clients_scheme_beats_the_instances() -> None:
    assert endpoint_scheme({}, None) == "http"
    assert endpoint_scheme({"scheme": "https"}, None) == "https"
    assert endpoint_scheme({"scheme": "https"}, "http") == "http"
    assert endpoint_scheme({"scheme": "gopher"}, None) == "http"
