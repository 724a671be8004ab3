"""Policies as canonical JSON, which is stored and pushed, and as YAML for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from trimtab.policy import quick
from trimtab.policy.documents import build
from trimtab.policy.forms import Form, Json, ListOf, Misfit, Nested, fields_of
from trimtab.policy.model import API_VERSION, KIND, MAX_CANONICAL_BYTES, Match, ServicePolicy
from trimtab.policy.problems import PolicyInvalid
from trimtab.policy.sections import OFF, SECTIONS, Sections
from trimtab.policy.tree import checked, from_json, plain, too_large


def encode(policy: ServicePolicy) -> bytes:
    """Canonical JSON: the same bytes for the same policy. Keys are sorted, all fields of a section written out."""
    document = _document(policy, lambda form, value: form.write(value))
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def decode(document: bytes) -> ServicePolicy:
    """The policy of a JSON document, canonical or not. Raises PolicyInvalid for anything that is not known here.

    A client that is older than the policy refuses it rather than ignore a part of it.
    """
    if problem := too_large(document, MAX_CANONICAL_BYTES):
        raise PolicyInvalid([problem])
    text = checked(document)
    try:
        return quick.read(text)
    except quick.Doubtful:
        # Again, for the places of what is wrong with it.
        return build(from_json(text))


def render(policy: ServicePolicy) -> str:
    """YAML as people write it, without what is left at its default; ``read`` reads it as the same policy.

    Raises ModuleNotFoundError without PyYAML.
    """
    return _yaml(_document(policy, _brief), width=110)


def brief(section: str, value: Any) -> str:
    """One line of YAML that says a section (or OFF) as a document would: ``{attempts: 5, budget: 10%}``, ``5s``, ``off``.

    Raises ModuleNotFoundError without PyYAML.
    """
    told = _Bare("off") if value is OFF else _brief(SECTIONS[section], value)
    # A scalar alone would be followed by the end of the document, "...".
    return _yaml(_Line({section: told}), width=1_000_000).strip()[1:-1].removeprefix(f"{section}: ")


class _Bare(str):
    """A word of the format itself, which needs no quotes."""

    __slots__ = ()


class _Line(dict[str, Json]):
    """A mapping that is written in one line."""


def _document(policy: ServicePolicy, written: Callable[[Form, Any], Json]) -> dict[str, Json]:
    spec: dict[str, Json] = {}
    if default := _sections(policy.default, written):
        spec["default"] = default
    if policy.routes:
        spec["routes"] = [
            {"match": _match(route.match, written), **_sections(route.sections, written)} for route in policy.routes
        ]
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": _Line(name=policy.name, namespace=policy.namespace),
        "spec": spec,
    }


def _sections(sections: Sections, written: Callable[[Form, Any], Json]) -> dict[str, Json]:
    said = {name: value for name in SECTIONS if (value := getattr(sections, name)) is not None}
    return {name: _Bare("off") if value is OFF else written(SECTIONS[name], value) for name, value in said.items()}


def _match(match: Match, written: Callable[[Form, Any], Json]) -> dict[str, Json]:
    told = {name: getattr(match, name) for name in fields_of(Match)}
    return _Line({name: written(fields_of(Match)[name].form, value) for name, value in told.items() if value})


def _brief(form: Form, value: Any) -> Json:
    """A section as short as it can be said: a sentence, a scalar, or the fields that are not at their defaults."""
    if isinstance(form, ListOf) and len(value) == 1:
        return form.each.write(value[0])
    if not isinstance(form, Nested):
        return form.write(value)
    if form.sentence and _says(form.sentence, str(value)) == value:
        return str(value)
    fields = fields_of(form.of)
    told = {name: one for name, at in fields.items() if (one := getattr(value, name)) != at.default}
    if form.scalar and told.keys() <= {form.scalar} and (scalar := getattr(value, form.scalar)) is not None:
        brief = _brief(fields[form.scalar].form, scalar)
        # The fields of a mapping would be taken for fields of this one.
        if not isinstance(brief, dict):
            return brief
    return _Line(
        {
            _Bare(name) if name == "on" else name: None if one is None else _brief(fields[name].form, one)
            for name, one in told.items()
        }
    )


def _says(sentence: Callable[[str], Any], text: str) -> Any:
    try:
        return sentence(text)
    except Misfit:
        return None


def _yaml(document: Json, width: int) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Lists and small mappings in one line, what is indented below its key, no anchors."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, indentless=False)

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Dumper, value: str) -> yaml.ScalarNode:
        style = None if plain(value) == value else "'"
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    def bare(dumper: Dumper, value: _Bare) -> yaml.ScalarNode:
        # on and off are truth values to YAML 1.1, which PyYAML speaks: it quotes texts that look like them.
        return dumper.represent_scalar("tag:yaml.org,2002:bool", value)

    def line(dumper: Dumper, value: _Line) -> yaml.MappingNode:
        return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)

    def sequence(dumper: Dumper, value: list[Json]) -> yaml.SequenceNode:
        flow = not any(isinstance(one, dict) for one in value)
        return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)

    Dumper.add_representer(str, text)
    Dumper.add_representer(_Bare, bare)
    Dumper.add_representer(_Line, line)
    Dumper.add_representer(list, sequence)
    rendered: str = yaml.dump(document, Dumper=Dumper, allow_unicode=True, sort_keys=False, width=width)
    return rendered
