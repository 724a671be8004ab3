"""Which section of which document holds for a call."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trimtab.policy.builtin import BUILT_IN
from trimtab.policy.effective import (
    Chooser,
    Effective,
    Layer,
    Origin,
    Request,
    fits,
    forebears,
    layers,
    resolve,
    settle,
)
from trimtab.policy.model import Match, Route, ServicePolicy
from trimtab.policy.reading import read
from trimtab.policy.sections import OFF, SECTIONS, Limit, Retry, Sections, Timeout, TokenThrottle
from trimtab.policy.shadows import shadows

from tests.unit.policy.documents import EXAMPLE

ORDERS = read(EXAMPLE)
EVERYBODY = ServicePolicy(
    namespace="shop",
    name="*",
    default=Sections(timeout=Timeout(total=9.0), limit=Limit(rate=1.0), hedge=OFF),
    routes=(Route(match=Match(method=("Charge",)), sections=Sections(priority="high", timeout=Timeout(total=8.0))),),
)


def effective(request: Request, *documents: ServicePolicy | None) -> dict[str, Effective]:
    return resolve(layers(*(documents or (ORDERS, EVERYBODY))), request)


def test_layers_come_in_the_order_of_precedence() -> None:
    assert [str(layer.origin) for layer in layers(ORDERS, EVERYBODY)] == [
        "shop/orders routes[0]",
        "shop/orders routes[1]",
        "shop/orders default",
        "shop/* routes[0]",
        "shop/* default",
        "built-in",
    ]


@pytest.mark.parametrize(
    ("section", "request_", "origin"),
    [
        ("retry", Request("Refund"), "shop/orders default"),
        ("retry", Request("Charge"), "shop/orders routes[0]"),
        ("timeout", Request("Charge"), "shop/orders default"),
        ("priority", Request("Charge"), "shop/* routes[0]"),
        ("priority", Request("Charge", caller="batch"), "shop/orders routes[1]"),
        ("limit", Request("Charge"), "shop/* default"),
        ("limit", Request(caller="batch"), "shop/orders routes[1]"),
        ("outlier", Request("Charge"), "built-in"),
        ("mirror", Request("Charge"), "built-in"),
    ],
)
def test_the_first_layer_that_fits_and_says_a_section_decides_it(section: str, request_: Request, origin: str) -> None:
    assert str(effective(request_)[section].origin) == origin


def test_every_section_has_an_answer_and_an_origin() -> None:
    assert effective(Request()).keys() == SECTIONS.keys()


def test_what_is_off_has_no_value_but_an_origin() -> None:
    assert effective(Request("Charge"))["retry"] == Effective(None, Origin("shop/orders", "routes[0]"))
    assert effective(Request())["hedge"] == Effective(None, Origin("shop/*", "default"))


def test_a_section_overrides_whole_and_never_field_by_field() -> None:
    narrow = read(EXAMPLE.replace("retry: off", "timeout: {attempt: 2s}"))
    assert effective(Request("Charge"), narrow, EVERYBODY)["timeout"].value == Timeout(attempt=2.0)


def test_without_documents_the_built_in_holds() -> None:
    found = effective(Request(), None, None)
    assert {name: one.value for name, one in found.items()} == {name: getattr(BUILT_IN, name) for name in SECTIONS}
    assert found["retry"].value == Retry(throttle=TokenThrottle(tokens=10.0, ratio=0.1))
    assert found["timeout"].value == Timeout(total=15.0)


@pytest.mark.parametrize(
    ("match", "request_", "does"),
    [
        (Match(method=("Charge",)), Request("Charge"), True),
        (Match(method=("Charge",)), Request("/shop.Orders/Charge"), True),
        (Match(method=("Charge",)), Request("shop.Orders/Charge"), True),
        (Match(method=("Charge",)), Request("shop.Orders/Recharge"), False),
        (Match(method=("shop.Orders/Charge",)), Request("/shop.Orders/Charge"), True),
        (Match(method=("shop.Orders/Charge",)), Request("/shop.Refunds/Charge"), False),
        (Match(method=("shop.Orders/Charge",)), Request("Charge"), False),
        (Match(method=("GET", "HEAD")), Request("HEAD"), True),
        (Match(method=("get",)), Request("GET"), False),
        (Match(path=("/v1/orders",)), Request("GET", "/v1/orders"), True),
        (Match(path=("/v1/orders",)), Request("GET", "/v1/orders/42"), False),
        (Match(path=("/v1/*",)), Request("GET", "/v1/orders/42"), True),
        (Match(path=("/v1/*",)), Request("GET", "/v1/"), True),
        (Match(path=("/v1/*",)), Request("GET", "/v1"), False),
        (Match(path=("/v2", "/v1*")), Request("GET", "/v1"), True),
        (Match(path=("/*",)), Request("Charge"), False),
        (Match(header=(("x-user", "a"),)), Request(headers={"x-user": "a"}), True),
        (Match(header=(("x-user", "a"),)), Request(headers={"x-user": "b"}), False),
        (Match(header=(("x-user", "*"),)), Request(headers={"x-user": "b"}), True),
        (Match(header=(("x-user", "*"),)), Request(), False),
        (Match(header=(("a", "1"), ("b", "2"))), Request(headers={"a": "1"}), False),
        (Match(caller=("batch", "cron")), Request(caller="cron"), True),
        (Match(caller=("batch",)), Request(), False),
        (Match(method=("GET",), caller=("batch",)), Request("GET"), False),
    ],
)
def test_a_match_fits_when_all_that_it_says_does(match: Match, request_: Request, does: bool) -> None:
    assert fits(match, request_) is does


# The same, prepared

_METHODS = ("GET", "Charge", "shop.Orders/Charge", "shop.Orders/Refund", "Refund")
_PATHS = ("/v1/orders", "/v1/orders/*", "/v1/*", "/*", "/v2")
_matches = st.builds(
    Match,
    method=st.lists(st.sampled_from(_METHODS), max_size=2, unique=True).map(tuple),
    path=st.lists(st.sampled_from(_PATHS), max_size=2, unique=True).map(tuple),
    header=st.sampled_from([(), (), (("a", "1"),), (("a", "*"),), (("a", "1"), ("b", "*"))]),
    caller=st.sampled_from([(), (), ("batch",), ("batch", "web")]),
)
_said = st.sampled_from([Sections(priority="low"), Sections(retry=OFF), Sections(priority="high", retry=Retry())])
_routes = st.lists(st.builds(Route, match=_matches, sections=_said), max_size=6).map(tuple)
_requests = st.builds(
    Request,
    method=st.sampled_from((*_METHODS, "/shop.Orders/Charge", "")),
    path=st.sampled_from(("/v1/orders", "/v1/orders/42", "/v1/", "/v3", "")),
    headers=st.sampled_from([{}, {"a": "1"}, {"a": "2", "b": "3"}, {"a": "1", "b": "3"}]),
    caller=st.sampled_from(("batch", "web", "")),
)
MANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(_routes, st.lists(_requests, min_size=1, max_size=8))
def test_a_chooser_finds_the_layers_that_fit(routes: tuple[Route, ...], requests: list[Request]) -> None:
    prepared = layers(ServicePolicy(namespace="shop", name="orders", routes=routes), EVERYBODY)
    choosers = {caller: Chooser(prepared, caller) for caller in ("batch", "web", "")}
    for request in requests:
        chooser = choosers[request.caller]
        expected = tuple(
            index for index, layer in enumerate(prepared) if layer.match is None or fits(layer.match, request)
        )
        # Twice: what is remembered is the same.
        for _ in range(2):
            chosen = chooser.choose(request.method, request.path, request.headers)
            assert chosen == expected
            assert settle(prepared[index] for index in chosen) == resolve(prepared, request)


@MANY
@given(_routes, _requests)
def test_what_a_chooser_does_not_need_may_be_left_out(routes: tuple[Route, ...], request: Request) -> None:
    chooser = Chooser(layers(ServicePolicy(namespace="a", name="b", routes=routes), None), request.caller)
    path = request.path if chooser.needs_path else ""
    headers: Any = request.headers if chooser.needs_headers else {}
    assert chooser.choose(request.method, path, headers) == chooser.choose(*request[:3])


@MANY
@given(_routes, _requests)
def test_a_settled_method_needs_neither_path_nor_headers(routes: tuple[Route, ...], request: Request) -> None:
    chooser = Chooser(layers(ServicePolicy(namespace="a", name="b", routes=routes), None), request.caller)
    chosen = chooser.choose(*request[:3])
    if chooser.settled(request.method):
        assert chooser.choose(request.method, "/v9", {"z": "1"}) == chosen
    else:
        assert chooser.needs_path or chooser.needs_headers


@MANY
@given(_routes, _requests)
def test_a_route_in_the_shadow_of_another_never_decides(routes: tuple[Route, ...], request: Request) -> None:
    for later, section, earlier in shadows(dict(enumerate(routes))):
        assert getattr(routes[earlier].sections, section) is not None
        assert not fits(routes[later].match, request) or fits(routes[earlier].match, request)


def test_layers_for_other_callers_are_dropped_at_once() -> None:
    prepared = layers(ORDERS, None)
    assert Chooser(prepared, "checkout").choose("GET") == (2, 3)
    assert Chooser(prepared, "batch").choose("GET") == (1, 2, 3)


def test_only_what_matters_is_asked_for() -> None:
    by_header = (Layer(Origin("a/b", "routes[0]"), Match(header=(("x", "1"),), caller=("batch",)), Sections()),)
    assert not Chooser(by_header, "checkout").needs_headers
    assert Chooser(by_header, "batch").needs_headers
    assert not Chooser(by_header, "batch").needs_path


def test_methods_that_somebody_makes_up_do_not_fill_the_memory() -> None:
    chooser = Chooser(layers(ORDERS, None), "checkout")
    for index in range(5000):
        assert chooser.choose(f"made-up-{index}") == (2, 3)
    assert sum(chooser.settled(f"made-up-{index}") for index in range(5000)) <= 1024
    assert chooser.choose("Charge") == (0, 2, 3)


def routes_for(*methods: str) -> tuple[Layer, ...]:
    """The layers of a document with a route for each method, and the ``*`` of its namespace."""
    said = Sections(timeout=Timeout(total=1.0))
    routes = tuple(Route(match=Match(method=(method,)), sections=said) for method in methods)
    return layers(ServicePolicy(namespace="shop", name="orders", routes=routes), EVERYBODY)


@pytest.mark.parametrize(
    ("before", "after", "places"),
    [
        ("AB", "AB", {0: 0, 1: 1}),
        ("AB", "CAB", {1: 0, 2: 1}),
        ("AB", "BA", {0: 1, 1: 0}),
        ("AB", "B", {0: 1}),
        ("AB", "AC", {0: 0, 1: 1}),  # the second one has another match now
        ("AB", "BC", {0: 1}),  # where the second one stood is another now, but it went elsewhere
        ("AAB", "BAA", {0: 2, 1: 0, 2: 1}),
    ],
)
def test_a_route_is_known_again_by_its_calls_and_else_by_its_place(
    before: str, after: str, places: dict[int, int]
) -> None:
    found = forebears(routes_for(*after), routes_for(*before))
    routes = {new.place: old.place for new, old in found.items() if new.document == "shop/orders"}
    assert routes == {"default": "default", **{f"routes[{new}]": f"routes[{old}]" for new, old in places.items()}}
    assert all(found[layer.origin] == layer.origin for layer in layers(None, EVERYBODY))
