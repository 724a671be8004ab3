"""The JSON Schema of policy documents, told by the same forms that read them."""

from __future__ import annotations

from trimtab.policy.forms import Json, Nested
from trimtab.policy.model import API_VERSION, EVERY, KIND, MAX_ROUTES, Match
from trimtab.policy.sections import SECTIONS
from trimtab.policy.words import NAME

DRAFT = "https://json-schema.org/draft/2020-12/schema"
# YAML 1.1 reads an unquoted off as false, so that both must say the same.
_OFF: Json = {"enum": ["off", False], "description": "Switched off here, whatever a wider policy says."}


def json_schema() -> dict[str, Json]:
    """JSON Schema (draft 2020-12) of a document, with descriptions and defaults, for editors and other programs.

    What it refuses, reading refuses, too; what contradicts itself (a breaker without a condition, a route that can never
    apply) only reading finds.
    """
    sections = {name: {"$ref": f"#/$defs/{name}"} for name in SECTIONS}
    return {
        "$schema": DRAFT,
        "title": KIND,
        "description": "What holds for calls to a service, and what holds for some of them instead.",
        "type": "object",
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": KIND},
            "metadata": {
                "type": "object",
                "properties": {
                    "name": {
                        "anyOf": [{"const": EVERY}, NAME.schema()],
                        "description": f"The service that is called; {EVERY} for every service of the namespace.",
                    },
                    "namespace": NAME.schema(),
                },
                "required": ["name", "namespace"],
                "additionalProperties": False,
            },
            "spec": {
                "type": "object",
                "properties": {
                    "default": {
                        "type": "object",
                        "description": "What holds for all calls of which no route says anything else.",
                        "properties": sections,
                        "additionalProperties": False,
                    },
                    "routes": {
                        "type": "array",
                        "description": "For each section, the first route that matches a call and says it decides.",
                        "maxItems": MAX_ROUTES,
                        "items": {
                            "type": "object",
                            "properties": {"match": {"$ref": "#/$defs/match"}, **sections},
                            "required": ["match"],
                            "minProperties": 2,
                            "additionalProperties": False,
                        },
                    },
                },
                "additionalProperties": False,
            },
        },
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "$defs": {"match": {**Nested(Match).schema(), "minProperties": 1}, **_section_schemas()},
    }


def _section_schemas() -> dict[str, Json]:
    return {
        name: {"anyOf": [_OFF, form.schema()]} if isinstance(form, Nested) else form.schema()
        for name, form in SECTIONS.items()
    }
