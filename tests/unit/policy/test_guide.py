"""docs/policies.md: its tables are what the forms say, its examples are policies."""

from __future__ import annotations

import re

import pytest
from trimtab.policy.builtin import BUILT_IN
from trimtab.policy.canonical import brief
from trimtab.policy.reading import read
from trimtab.policy.sections import SECTIONS

from tests.unit.policy.documents import default
from tests.unit.policy.guide import GUIDE, held, tables

_EXAMPLES = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def test_the_tables_are_those_of_the_forms() -> None:
    assert held() == tables(), "write them anew with: python -m tests.unit.policy.guide"


@pytest.mark.parametrize("example", _EXAMPLES, ids=[text.splitlines()[0] for text in _EXAMPLES])
def test_the_examples_are_policies(example: str) -> None:
    whole = example if example.startswith("apiVersion") else default(example)
    assert read(whole).default.__class__ is type(BUILT_IN)


def test_what_is_built_in_is_told() -> None:
    told = GUIDE.read_text().partition("## Built in")[2].partition("##")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", told, re.MULTILINE))
    said = {name: value for name in SECTIONS if (value := getattr(BUILT_IN, name)) is not None}
    assert rows == {name: brief(name, value) for name, value in said.items()}
