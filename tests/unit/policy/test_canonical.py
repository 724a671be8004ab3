"""Canonical JSON and YAML for people: both say the same policy, whatever it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from trimtab.policy import quick
from trimtab.policy.canonical import brief, decode, encode, render
from trimtab.policy.forms import fields_of
from trimtab.policy.model import MAX_CANONICAL_BYTES, ServicePolicy
from trimtab.policy.problems import PolicyInvalid
from trimtab.policy.reading import read
from trimtab.policy.sections import OFF, Breaker, Fallback, Limit, OpenWhen, Retry, Sections, Timeout

from tests.unit.policy.documents import EXAMPLE, policies

WIDE = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@WIDE
@given(policies)
def test_what_is_written_is_read_as_the_same(policy: ServicePolicy) -> None:
    document = encode(policy)
    assert decode(document) == read(document) == policy
    assert encode(decode(document)) == document
    assert b"\\u" in document or quick.read(document.decode()) == policy


@WIDE
@given(policies)
@example(
    ServicePolicy(namespace="shop", name="orders", default=Sections(breaker=Breaker(open_when=OpenWhen(failures=1.0))))
)
def test_what_is_rendered_for_people_is_read_as_the_same(policy: ServicePolicy) -> None:
    assert read(render(policy)) == policy


def test_canonical_json_is_sorted_compact_and_writes_every_field_out() -> None:
    policy = read(EXAMPLE)
    told = json.loads(encode(policy))
    assert encode(policy).decode() == json.dumps(told, sort_keys=True, separators=(",", ":"))
    assert told["spec"]["default"]["retry"].keys() == fields_of(Retry).keys()
    assert told["spec"]["routes"][0] == {"match": {"method": ["Charge"]}, "retry": "off"}


def test_the_order_in_which_a_document_is_written_does_not_matter() -> None:
    lines = EXAMPLE.splitlines(keepends=True)
    assert encode(read("".join([*lines[2:], *lines[:2]]))) == encode(read(EXAMPLE))


def test_rendering_leaves_defaults_out() -> None:
    assert render(read(EXAMPLE)) == (
        "apiVersion: trimtab/v1\n"
        "kind: ServicePolicy\n"
        "metadata: {name: orders, namespace: shop}\n"
        "spec:\n"
        "  default:\n"
        "    timeout: {total: 3s, attempt: 1s}\n"
        "    concurrency: 200\n"
        "    breaker: failures >= 50% of 20 in 10s\n"
        "    balance: {locality: prefer-zone}\n"
        "    retry: {on: [connect-failure, 503, UNAVAILABLE], backoff: 50ms..1s, budget: 20%}\n"
        "  routes:\n"
        "    - match: {method: Charge}\n"
        "      retry: off\n"
        "    - match: {caller: batch}\n"
        "      priority: low\n"
        "      limit: {rate: 50/s, burst: 100}\n"
    )


@pytest.mark.parametrize(
    ("section", "value", "line"),
    [
        ("retry", OFF, "off"),
        ("retry", Retry(), "3"),
        ("retry", Retry(attempts=5, on=("503",)), "{attempts: 5, on: 503}"),
        ("timeout", Timeout(total=0.25), "250ms"),
        ("limit", Limit(rate=100 / 60), "100/m"),
        (
            "breaker",
            Breaker(open_when=OpenWhen(consecutive=5), open_for=90.0),
            "{open_when: 5 in a row, open_for: 90s}",
        ),
        ("fallback", Fallback(value='{"items":[]}'), "{value: {items: []}}"),
        ("priority", "low", "low"),
    ],
)
def test_a_section_can_be_told_in_one_line(section: str, value: object, line: str) -> None:
    assert brief(section, value) == line


@WIDE
@given(policies, st.data())
def test_a_brief_section_reads_as_the_section(policy: ServicePolicy, data: st.DataObject) -> None:
    said = {name: value for name in Sections.__slots__ if (value := getattr(policy.default, name)) is not None}
    if not said:
        said = {"priority": "low"}
    name = data.draw(st.sampled_from(sorted(said)))
    head = "apiVersion: trimtab/v1\nkind: ServicePolicy\nmetadata: {name: a, namespace: b}\nspec: {default: {"
    assert getattr(read(f"{head}{name}: {brief(name, said[name])}}}}}").default, name) == said[name]


def test_decoding_knows_no_field_that_it_does_not_know() -> None:
    newer = encode(read(EXAMPLE)).replace(b'"probes":', b'"probe_share":0.1,"probes":')
    with pytest.raises(PolicyInvalid, match=r"breaker\.probe_share: unknown field"):
        decode(newer)


@pytest.mark.parametrize("document", [b"", b"{", b"\xff", b"[]", EXAMPLE.encode(), b'{"a":NaN}', b"{}{}"])
def test_decoding_takes_nothing_but_one_json_policy(document: bytes) -> None:
    with pytest.raises(PolicyInvalid):
        decode(document)


def test_decoding_has_an_upper_bound() -> None:
    with pytest.raises(PolicyInvalid, match=r"^line \d+, column \d+: .* too many"):
        decode(b" " * (MAX_CANONICAL_BYTES + 1))


def test_what_a_client_would_never_apply_is_refused_without_places_too() -> None:
    route = b'{"match":{"caller":["batch"]},"server":{"concurrency":5}}'
    document = encode(read(EXAMPLE)).replace(b'"routes":[', b'"routes":[' + route + b",")
    with pytest.raises(PolicyInvalid, match="servers do not know their callers by name"):
        decode(document)
