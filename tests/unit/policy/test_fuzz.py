"""Any text is either a policy or refused as one: nothing else is ever raised."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from trimtab.policy.canonical import decode, encode
from trimtab.policy.documents import build
from trimtab.policy.model import ServicePolicy
from trimtab.policy.problems import PolicyInvalid, Problem
from trimtab.policy.reading import read, read_all
from trimtab.policy.tree import MAX_DEPTH, checked, from_json

from tests.unit.policy.documents import EXAMPLE, as_json, default, policies

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
SCRAPS = st.sampled_from(
    ["{", "}", "[", "]", ":", "- ", ",", "'", '"', "\n", "  ", "\t", "&a", "*a", "!!int", "? ", "|\n", ">", "%",
     "off", "null", "~", "1e999", "-0", "9" * 5000, "NaN", ".inf", "0x1f", "<<: ", "---\n", "...\n", "%YAML 9.9\n",
     "\\", '"\\ud800"', '"\\UFFFFFFFF"', "\x00", "\x85", "\u2028", "\ufeff", "\ud800", "é", "🙂",
     "retry", "spec", "match", "10 in a row", "50%", "5/0s", "1s..2s"]
)  # fmt: skip

OTHERS = st.sampled_from(
    [None, True, False, 0, 1, -1, 2, 503, 503.0, 1.0, 0.5, 1e300, "", "on", "off", "x", "5s", "503", "1ms..2s", "50%",
     "10/s", "5 in a row", "low", "p2c", "*", [], ["GET"], ["GET", "GET"], [503, "503"], [503.0], [[]], {}, {"x": "y"},
     {"x": 1}, {"limit": 5}, {"method": "GET"}, {"match": {}}]
)  # fmt: skip


def either(text: str | bytes) -> ServicePolicy | None:
    policy = None
    with contextlib.suppress(PolicyInvalid):
        policy = read(text)
        assert decode(encode(policy)) == policy
    with contextlib.suppress(PolicyInvalid):
        read_all(text)
    with contextlib.suppress(PolicyInvalid):
        decode(text if isinstance(text, bytes) else text.encode(errors="replace"))
    return policy


def outcome(work: Callable[[], ServicePolicy]) -> ServicePolicy | tuple[Problem, ...]:
    """The policy, or all that is wrong."""
    try:
        return work()
    except PolicyInvalid as invalid:
        return invalid.problems


def same_as_with_places(document: bytes) -> ServicePolicy | tuple[Problem, ...]:
    """What a client makes of a document is what the reader that knows places makes of it."""
    found = outcome(lambda: decode(document))
    assert found == outcome(lambda: build(from_json(checked(document))))
    return found


@FUZZ
@given(st.text() | st.binary() | st.lists(SCRAPS | st.text(max_size=3), max_size=30).map("".join))
@example("[" * 100_000)
@example("{" * 100_000)
@example('{"a":' * 20_000)
@example("- " * 50_000)
@example("? " * 5_000)
@example("a: " + "9" * 100_000)
@example('{"a": ' + "9" * 100_000)
@example("\n" * 100_000)
@example("- a\n" * 50_000)
@example("&a " * 1000)
def test_any_text(text: str | bytes) -> None:
    either(text)


@FUZZ
@given(st.data())
def test_the_example_with_something_else_in_it(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([EXAMPLE, as_json(EXAMPLE)]))
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = min(len(text), begin + data.draw(st.integers(0, 12)))
        text = text[:begin] + data.draw(SCRAPS | st.text(max_size=4)) + text[end:]
    either(text)


@FUZZ
@given(st.data())
def test_the_bytes_of_a_policy_with_something_else_in_them(data: st.DataObject) -> None:
    document = encode(data.draw(policies))
    at = data.draw(st.integers(0, len(document)))
    changed = document[:at] + data.draw(st.binary(max_size=3)) + document[at + data.draw(st.integers(0, 3)) :]
    either(changed)
    same_as_with_places(changed)


@pytest.mark.parametrize(
    "pieces",
    [
        ("3", "1e1"),
        ("3", "9" * 18, "9" * 19, "-" + "9" * 18, "-" + "9" * 19),
        ("3", "1e999"),
        ("3", "NaN", "Infinity", "-0", "03", "3.", "+3", "0x3", "true", "null"),
        ('"POST"', '"PO\\u0053T"', '"\\ud800"', '"\\u007f"', '"\\\\u0053"', '"\x7f"', '"a\tb"', "'POST'"),
        ("}]", "},]", "}]]", "}]//", "}] ", "}]\n"),
        ('"attempts"', '"on":"503","attempts"', '"attemps"', '"on":503,"on":503,"attempts"'),
    ],
)
def test_a_document_is_taken_or_refused_alike_with_and_without_places(pieces: tuple[str, ...]) -> None:
    document = (
        '{"apiVersion":"trimtab/v1","kind":"ServicePolicy","metadata":{"name":"orders","namespace":"shop"},'
        '"spec":{"routes":[{"match":{"method":["POST"]},"retry":{"attempts":3}}]}}'
    )
    first, *others = pieces
    assert document.count(first) == 1
    assert isinstance(same_as_with_places(document.encode()), ServicePolicy)
    for other in others:
        same_as_with_places(document.replace(first, other).encode())


@FUZZ
@given(st.data())
def test_a_policy_with_another_value_in_one_place(data: st.DataObject) -> None:
    document = json.loads(encode(data.draw(policies)))
    held = document
    while True:
        at = data.draw(st.sampled_from(range(len(held)) if isinstance(held, list) else sorted(held)))
        if not isinstance(held[at], (dict, list)) or not held[at] or data.draw(st.integers(0, 3)) == 0:
            break
        held = held[at]
    held[at] = data.draw(OTHERS)
    same_as_with_places(json.dumps(document, ensure_ascii=False).encode())


@pytest.mark.parametrize(("depth", "taken"), [(MAX_DEPTH - 4, True), (MAX_DEPTH - 3, False), (5000, False)])
def test_a_document_is_as_deep_as_it_may_be_with_and_without_places(depth: int, taken: bool) -> None:
    text = as_json(default("fallback: {value: 7}")).replace("7", f"{'[' * depth}{']' * depth}")
    assert isinstance(same_as_with_places(text.encode()), ServicePolicy) is taken


@FUZZ
@given(st.sampled_from(["retry", "timeout", "breaker", "limit", "split", "fallback", "server", "priority"]), st.data())
def test_a_section_that_is_anything(name: str, data: st.DataObject) -> None:
    either(default(f"{name}: {data.draw(SCRAPS | st.text(max_size=12))}"))


@FUZZ
@given(st.lists(SCRAPS, max_size=20).map("".join))
def test_yaml_read_without_its_c_part(text: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("yaml.__with_libyaml__", False)
        either(text)
