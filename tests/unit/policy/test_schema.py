"""The JSON Schema describes what is read: nothing that is a policy is refused by it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from trimtab.policy.canonical import encode
from trimtab.policy.forms import Nested, fields_of
from trimtab.policy.model import ServicePolicy
from trimtab.policy.schema import json_schema
from trimtab.policy.sections import SECTIONS

from tests.unit.policy.documents import EXAMPLE, policies
from tests.unit.policy.schema_check import valid

SCHEMA = json_schema()


def fits(document: Any) -> bool:
    return valid(document, SCHEMA, SCHEMA)


class Core(yaml.SafeLoader):
    """A loader that, like editors, takes on and off for texts (YAML 1.2)."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if first not in "oO"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def test_the_example_fits() -> None:
    assert fits(yaml.load(EXAMPLE, Core))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(policies)
def test_every_policy_fits(policy: ServicePolicy) -> None:
    assert fits(json.loads(encode(policy)))


@pytest.mark.parametrize(
    "default",
    [
        {"retries": {}},
        {"retry": {"attemps": 3}},
        {"retry": {"attempts": 0}},
        {"retry": {"attempts": "three"}},
        {"retry": None},
        {"retry": True},
        {"retry": {"on": []}},
        {"timeout": "3 s"},
        {"limit": {"rate": "5/d"}},
        {"priority": "off"},
        {"split": {}},
        {"split": {"weights": {"v1": -1}}},
        {"balance": {"algorithm": "best"}},
    ],
)
def test_what_no_document_may_say_does_not_fit(default: dict[str, Any]) -> None:
    document = json.loads(encode(ServicePolicy(namespace="shop", name="orders")))
    assert fits(document)
    document["spec"]["default"] = default
    assert not fits(document)


def test_a_route_must_match_something_and_say_something() -> None:
    document = json.loads(encode(ServicePolicy(namespace="shop", name="orders")))
    for route, may_be in (
        ({"match": {"method": "GET"}, "retry": "off"}, True),
        ({"match": {}, "retry": "off"}, False),
        ({"match": {"method": "GET"}}, False),
        ({"retry": "off", "hedge": "off"}, False),
    ):
        document["spec"]["routes"] = [route]
        assert fits(document) is may_be


def test_every_section_and_field_is_described() -> None:
    for name, form in SECTIONS.items():
        assert name in SCHEMA["$defs"]
        if isinstance(form, Nested):
            whole = form.schema().get("anyOf", [form.schema()])[0]
            assert whole["description"]
            assert whole["properties"].keys() == fields_of(form.of).keys()
            assert all(field["description"] for field in whole["properties"].values())


def test_the_schema_is_json() -> None:
    assert json.loads(json.dumps(SCHEMA, allow_nan=False)) == SCHEMA
