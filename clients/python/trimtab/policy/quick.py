"""Reads documents that have nothing wrong with them, which those that are pushed have: no places are noted on the way.

What ``documents.build`` makes of the tree of a document this makes of the plain JSON, several times as fast: a change
reaches every client of a service in the same moment. It says yes or no. Who needs to know why not, or has a short form
that only people write, walks the tree.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from trimtab.policy.forms import REQUIRED, Anything, Field, Form, Json, ListOf, MapOf, Nested, fields_of
from trimtab.policy.model import API_VERSION, EVERY, KIND, MAX_ROUTES, Match, Route, ServicePolicy
from trimtab.policy.sections import OFF, SECTIONS, Fallback, Mirror, Sections
from trimtab.policy.shadows import shadows
from trimtab.policy.tree import MAX_DEPTH, MAX_DIGITS
from trimtab.policy.words import NAME

_PARTS = 8  # no value of a section begins deeper than this

Reader = Callable[[Json], Any]


class Doubtful(ValueError):
    """Something may be wrong with the document."""


def read(text: str) -> ServicePolicy:
    """The policy of a JSON document. Raises Doubtful, and nothing else, for every text that is none.

    Also for some that are: with escapes of characters, with short forms, or nested deeply.
    """
    if "\\u" in text:  # an escape may name what is no text
        raise Doubtful("an escape")
    try:
        return _policy(_loads(text))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Doubtful(str(error)) from None


def _policy(document: Json) -> ServicePolicy:
    _only(document, ("apiVersion", "kind", "metadata", "spec"))
    metadata, spec = document["metadata"], document["spec"]
    _only(metadata, ("name", "namespace"))
    _only(spec, ("default", "routes"))
    _demand(document["apiVersion"] == API_VERSION and document["kind"] == KIND)
    name = EVERY if metadata["name"] == EVERY else NAME.read(metadata["name"])
    routes = spec.get("routes", [])
    _demand(type(routes) is list and len(routes) <= MAX_ROUTES)
    policy = ServicePolicy(
        namespace=NAME.read(metadata["namespace"]),
        name=name,
        default=_sections(spec.get("default", {}), name),
        routes=tuple([_route(route, name) for route in routes]),
    )
    if len(routes) > 1:
        _demand(next(shadows(dict(enumerate(policy.routes))), None) is None)
    return policy


def _route(route: Json, name: str) -> Route:
    _demand(type(route) is dict)
    match = route.pop("match")
    _demand(bool(match) and bool(route))
    told = Route(match=reader(_MATCH)(match), sections=_sections(route, name))
    _demand(next(told.contradictions(), None) is None)
    return told


def _sections(told: Json, name: str) -> Sections:
    _demand(type(told) is dict)
    found = {section: _section(section, value) for section, value in told.items()}
    sections = Sections(**found)
    for held in (sections.mirror, sections.fallback):
        _demand(not isinstance(held, (Mirror, Fallback)) or held.service != name)
    _demand(next(sections.contradictions(), None) is None)
    return sections


def _section(section: str, value: Json) -> Any:
    form = SECTIONS[section]
    if (value is False or value == "off") and isinstance(form, Nested):
        return OFF
    return reader(form)(value)


_MATCH = Nested(Match)


def reader(form: Form) -> Reader:
    """What reads a form's plain JSON. It raises ValueError, LookupError or TypeError for what does not fit."""
    if isinstance(form, Nested):
        return _nested(form)
    if isinstance(form, ListOf):
        return _list_of(form)
    if isinstance(form, MapOf):
        return _map_of(form)
    return _anything(form) if isinstance(form, Anything) else form.read


@cache
def _nested(form: Nested) -> Reader:
    of = form.of
    # Canonical documents write out every field, and most are at their defaults.
    fields = {name: (reader(at.form), at.optional, *_written(at)) for name, at in fields_of(of).items()}
    consistent = not hasattr(of, "contradictions")

    def read(value: Json) -> Any:
        _demand(type(value) is dict)
        found = {}
        for name, one in value.items():
            take, optional, kind, default = fields[name]
            if type(one) is not kind or one != default:
                found[name] = None if one is None and optional else take(one)
        section = of(**found)
        _demand(consistent or next(section.contradictions(), None) is None)
        return section

    return read


def _written(at: Field) -> tuple[type[Any] | None, Json]:
    """A field's default as JSON has it, and its type, as ``true`` is 1 to Python; no type where it must be read anyway."""
    if at.default is REQUIRED:
        return None, None
    written = None if at.default is None else at.form.write(at.default)
    return (None, None) if isinstance(written, (dict, list)) else (type(written), written)


def _list_of(form: ListOf) -> Reader:
    take, low, high = form.each.read, form.low, form.high

    def read(value: Json) -> tuple[Any, ...]:
        _demand(type(value) is list and low <= len(value) <= high)
        found = tuple([take(one) for one in value])
        _demand(len(set(found)) == len(found))
        return found

    return read


def _map_of(form: MapOf) -> Reader:
    key, take, low, high = form.key.read, form.each.read, form.low, form.high

    def read(value: Json) -> tuple[tuple[str, Any], ...]:
        _demand(type(value) is dict and low <= len(value) <= high)
        found = {key(name): take(one) for name, one in value.items()}
        _demand(len(found) == len(value))
        return tuple(sorted(found.items()))

    return read


def _anything(form: Anything) -> Reader:
    def read(value: Json) -> str:
        _shallow(value, MAX_DEPTH - _PARTS)
        return form.read(value)

    return read


def _shallow(value: Json, left: int) -> None:
    _demand(left > 0)
    if isinstance(value, (dict, list)):
        for held in value.values() if isinstance(value, dict) else value:
            _shallow(held, left - 1)


def _only(value: Json, known: tuple[str, ...]) -> None:
    _demand(type(value) is dict and value.keys() <= set(known))


def _demand(fits: bool) -> None:
    if not fits:
        raise Doubtful


def _once(members: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(members)
    _demand(len(found) == len(members))
    return found


def _short(digits: str) -> int:
    _demand(len(digits.removeprefix("-")) <= MAX_DIGITS)
    return int(digits)


def _finite(number: str) -> float:
    found = float(number)
    _demand(abs(found) != float("inf"))
    return found


def _no_number(word: str) -> float:
    raise Doubtful(word)


_loads = json.JSONDecoder(
    object_pairs_hook=_once, parse_int=_short, parse_float=_finite, parse_constant=_no_number
).decode
