"""Any text is either a policy or refused as one: nothing else is ever raised."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from trimtab.policy.canonical import decode, encode
from trimtab.policy.model import ServicePolicy
from trimtab.policy.problems import PolicyInvalid
from trimtab.policy.reading import read, read_all

from tests.unit.policy.documents import EXAMPLE, as_json, default, policies

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
SCRAPS = st.sampled_from(
    ["{", "}", "[", "]", ":", "- ", ",", "'", '"', "\n", "  ", "\t", "&a", "*a", "!!int", "? ", "|\n", ">", "%",
     "off", "null", "~", "1e999", "-0", "9" * 5000, "NaN", ".inf", "0x1f", "<<: ", "---\n", "...\n", "%YAML 9.9\n",
     "\\", '"\\ud800"', '"\\UFFFFFFFF"', "\x00", "\x85", "\u2028", "\ufeff", "\ud800", "é", "🙂",
     "retry", "spec", "match", "10 in a row", "50%", "5/0s", "1s..2s"]
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
    either(document[:at] + data.draw(st.binary(max_size=3)) + document[at + data.draw(st.integers(0, 3)) :])


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
