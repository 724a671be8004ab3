"""What may be registered: every violation at once, each with its place and a way out."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.core import validation
from controlplane.core.model import DEFAULT_WEIGHT, Instance, InstanceState
from controlplane.errors import Code, TrimtabError

GOOD: dict[str, Any] = {
    "namespace": "shop",
    "service": "orders",
    "id": "a",
    "address": "10.0.0.1",
    "port": 8000,
    "weight": 10,
    "zone": "eu-1a",
    "metadata": {"version": "1"},
    "state": int(InstanceState.STARTING),
}


def refusal(**changes: Any) -> TrimtabError:
    with pytest.raises(TrimtabError) as caught:
        validation.instance(**{**GOOD, **changes})
    assert caught.value.code is Code.INVALID
    return caught.value


def paths(error: TrimtabError) -> list[str]:
    return [violation.path for violation in error.violations]


def test_a_good_instance_is_taken_as_it_is() -> None:
    assert validation.instance(**GOOD) == Instance(
        "shop", "orders", "a", "10.0.0.1", 8000, 10, "eu-1a", {"version": "1"}, InstanceState.STARTING
    )


def test_what_is_left_out_takes_its_default() -> None:
    changes: dict[str, Any] = {"namespace": "", "id": "", "weight": 0, "state": 0, "zone": "", "metadata": {}}
    made = validation.instance(**{**GOOD, **changes}, default_namespace="mine")
    assert made == Instance("mine", "orders", "10.0.0.1-8000", "10.0.0.1", 8000, DEFAULT_WEIGHT)
    assert made.state is InstanceState.SERVING


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("namespace", "Shop", "instance.namespace"),
        ("namespace", "-shop", "instance.namespace"),
        ("service", "", "instance.service"),
        ("service", "a" * 64, "instance.service"),
        ("service", "orders/evil", "instance.service"),
        ("service", "orders\n", "instance.service"),
        ("id", "a b", "instance.id"),
        ("id", "..", "instance.id"),
        ("id", "x" * 129, "instance.id"),
        ("address", "", "instance.address"),
        ("address", "http://10.0.0.1", "instance.address"),
        ("address", "10.0.0.1:80", "instance.address"),
        ("address", "10.0.0.256", "instance.address"),
        ("address", "fe80::1%eth0", "instance.address"),
        ("address", "0.0.0.0", "instance.address"),
        ("address", "::", "instance.address"),
        ("address", "0:0:0:0:0:0:0:0", "instance.address"),
        ("address", "host_name", "instance.address"),
        ("address", f"{'a' * 60}.{'b' * 60}.{'c' * 10}", "instance.id"),
        ("port", 0, "instance.port"),
        ("port", -1, "instance.port"),
        ("port", 65_536, "instance.port"),
        ("weight", -1, "instance.weight"),
        ("weight", 65_536, "instance.weight"),
        ("zone", "z" * 64, "instance.zone"),
        ("state", 5, "instance.state"),
        ("metadata", {"": "x"}, "instance.metadata['']"),
        ("metadata", {"k" * 64: "x"}, f"instance.metadata['{'k' * 64}']"),
        ("metadata", {"k": "v" * 513}, "instance.metadata['k']"),
        ("metadata", {str(n): "" for n in range(65)}, "instance.metadata"),
        ("metadata", {str(n): "v" * 512 for n in range(17)}, "instance.metadata"),
    ],
)
def test_one_bad_field_is_refused_at_its_place_with_a_reason_and_a_hint(field: str, value: Any, path: str) -> None:
    changes = {field: value}
    if path == "instance.id" and field == "address":
        changes["id"] = ""  # derived from an address that is too long for an id
    error = refusal(**changes)
    assert paths(error) == [path]
    assert all(violation.message for violation in error.violations)
    assert all(violation.hint for violation in error.violations)


@pytest.mark.parametrize("port", [1, 65_535])
@pytest.mark.parametrize("weight", [1, 65_535])
def test_the_ends_of_the_ranges_are_good(port: int, weight: int) -> None:
    made = validation.instance(**{**GOOD, "port": port, "weight": weight})
    assert (made.port, made.weight) == (port, weight)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "2001:db8::5", "orders-1.shop.svc", "a", "xn--bcher-kva.example"]
)
def test_addresses_that_can_be_dialled_are_good(address: str) -> None:
    assert validation.instance(**{**GOOD, "address": address}).address == address


def test_metadata_may_fill_its_limits_exactly() -> None:
    full = {f"{n:02}": "v" * 510 for n in range(16)}
    assert sum(len(k) + len(v) for k, v in full.items()) == validation.MAX_METADATA_BYTES
    assert validation.instance(**{**GOOD, "metadata": full}).metadata == full


def test_metadata_is_measured_in_bytes_not_in_characters() -> None:
    assert paths(refusal(metadata={f"{n:02}": "é" * 500 for n in range(9)})) == ["instance.metadata"]


def test_everything_wrong_is_told_at_once() -> None:
    error = refusal(namespace="N", service="S", id="a b", address="?", port=0, weight=-1, zone="z" * 64, state=9)
    assert paths(error) == [
        "instance.namespace",
        "instance.service",
        "instance.address",
        "instance.port",
        "instance.id",
        "instance.weight",
        "instance.zone",
        "instance.state",
    ]


def test_the_message_quotes_no_more_than_a_little_of_what_was_sent() -> None:
    assert len(str(refusal(service="s" * 100_000))) < 1000


def test_a_stored_metadata_is_not_the_callers_dictionary() -> None:
    mine = {"a": "1"}
    made = validation.instance(**{**GOOD, "metadata": mine})
    mine["a"] = "2"
    assert made.metadata == {"a": "1"}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"namespace": "N"}, "namespace"),
        ({"app": "a/b"}, "app"),
        ({"file": "a/b"}, "file"),
        ({"file": ".."}, "file"),
        ({"format": "xml"}, "format"),
        ({"content": b"x" * (validation.MAX_CONFIG_BYTES + 1)}, "content"),
    ],
)
def test_a_bad_configuration_file_is_refused_at_its_place(changes: dict[str, Any], path: str) -> None:
    good = {"namespace": "shop", "app": "orders", "file": "app.yaml", "format": "yaml", "content": b"a: 1"}
    validation.check_config(**good)  # type: ignore[arg-type]
    with pytest.raises(TrimtabError) as caught:
        validation.check_config(**{**good, **changes})
    assert paths(caught.value) == [path]


def test_an_instance_name_is_checked_part_by_part() -> None:
    validation.check_instance_name("shop", "orders", "a")
    with pytest.raises(TrimtabError) as caught:
        validation.check_instance_name("S", "O", "a b")
    assert paths(caught.value) == ["namespace", "service", "id"]
