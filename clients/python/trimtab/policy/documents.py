"""From the tree of a document to the policy that it says, noting everything that is wrong with it on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trimtab.policy.forms import (
    REQUIRED,
    Form,
    Json,
    Leaf,
    ListOf,
    MapOf,
    Misfit,
    Nested,
    did_you_mean,
    fields_of,
    shown,
)
from trimtab.policy.model import API_VERSION, EVERY, KIND, MAX_ROUTES, NOTHING, Match, Route, ServicePolicy
from trimtab.policy.problems import PolicyInvalid, Problem
from trimtab.policy.sections import OFF, SECTIONS, Fallback, Mirror, Sections
from trimtab.policy.shadows import shadows
from trimtab.policy.tree import Entries, Entry, Node
from trimtab.policy.words import NAME

MAX_PROBLEMS = 100  # whoever has made more than that looks at the first ones anyway

_BAD: Any = object()  # stands for a value whose problem has been noted
_MATCH = Nested(Match)

# What to write where something is missing.
_PARTS = {
    "apiVersion": f"write apiVersion: {API_VERSION}",
    "kind": f"write kind: {KIND}",
    "metadata": "write metadata: {name: SERVICE, namespace: NAMESPACE}",
    "spec": "write spec: {default: {…}}, with what holds for calls",
    "name": f'the service that is called, or "{EVERY}" for every service of the namespace',
    "namespace": "that of the service that is called",
}


def build(node: Node) -> ServicePolicy:
    """The policy that a document says. Raises PolicyInvalid with all that is wrong, the first MAX_PROBLEMS of it."""
    builder = _Builder()
    policy = builder.policy(node)
    if builder.problems:
        raise PolicyInvalid(builder.problems)
    return policy


class _Builder:
    """Walks down a tree; what it cannot use it notes and stands _BAD in for it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def refuse(self, at: Node | Entry, path: str, message: str, hint: str = "") -> Any:
        """Note a problem. Raises PolicyInvalid when there are enough."""
        self.problems.append(Problem(path, at.line, at.column, message, hint))
        if len(self.problems) >= MAX_PROBLEMS:
            raise PolicyInvalid(self.problems)
        return _BAD

    def policy(self, node: Node) -> ServicePolicy:
        """The whole document."""
        top = self.mapping(node, "", ("apiVersion", "kind", "metadata", "spec"))
        self.constant(top, node, "apiVersion", API_VERSION)
        self.constant(top, node, "kind", KIND)
        namespace = name = _BAD
        if metadata := self.part(top, node, "metadata"):
            names = self.mapping(metadata, "metadata", ("name", "namespace"))
            namespace = self.name(names, metadata, "namespace")
            name = self.name(names, metadata, "name")
        default = NOTHING
        routes: tuple[Route, ...] = ()
        if spec := self.part(top, node, "spec"):
            parts = self.mapping(spec, "spec", ("default", "routes"))
            if "default" in parts:
                default = self.sections(parts["default"].node, "spec.default", name)
            if "routes" in parts:
                routes = self.routes(parts["routes"].node, "spec.routes", name)
        return ServicePolicy(namespace=namespace, name=name, default=default, routes=routes)

    def part(self, top: Mapping[str, Entry], node: Node, key: str) -> Node | None:
        """What a key holds that must be there."""
        if key in top:
            return top[key].node
        if isinstance(node.value, Entries):
            self.refuse(node, key, "missing", _PARTS[key])
        return None

    def constant(self, top: Mapping[str, Entry], node: Node, key: str, value: str) -> None:
        """A key that can only hold one value."""
        held = self.part(top, node, key)
        if held and held.value != value:
            self.refuse(held, key, f"{self.shown(held)} is not known here", f"write {value}")

    def name(self, names: Mapping[str, Entry], node: Node, key: str) -> Any:
        """A name in the metadata."""
        held = names.get(key)
        path = f"metadata.{key}"
        if held is None:
            return self.refuse(node, path, "missing", _PARTS[key]) if isinstance(node.value, Entries) else _BAD
        return EVERY if key == "name" and held.node.value == EVERY else self.take(NAME, held.node, path)

    def routes(self, node: Node, path: str, name: str) -> tuple[Route, ...]:
        """The routes, of which each must be able to decide something."""
        if not isinstance(node.value, list):
            self.refuse(node, path, f"{self.shown(node)} is no list", "- match: {…}")
            return ()
        if len(node.value) > MAX_ROUTES:
            self.refuse(node.value[MAX_ROUTES], path, f"{len(node.value)} routes", f"at most {MAX_ROUTES}")
        found = [self.route(at, f"{path}[{index}]", name) for index, at in enumerate(node.value[:MAX_ROUTES])]
        whole = {index: route for index, route in enumerate(found) if route.match is not _BAD}
        for later, section, earlier in shadows(whole):
            entries = node.value[later].value
            at = next(entry for entry in entries if entry.key == section)
            message = f"never applies: routes[{earlier}] matches all of these calls before and says {section}, too"
            self.refuse(at, f"{path}[{later}].{section}", message, f"put routes[{later}] before it, or remove one")
        return tuple(found)

    def route(self, node: Node, path: str, name: str) -> Route:
        """One route: a match, and sections beside it."""
        entries = self.mapping(node, path, ("match", *SECTIONS))
        match = _BAD
        if held := entries.pop("match", None):
            if isinstance(held.node.value, Entries) and not held.node.value:
                self.refuse(held.node, f"{path}.match", "matches every call", "say so in spec.default instead")
            else:
                match = self.take(_MATCH, held.node, f"{path}.match")
        elif isinstance(node.value, Entries):
            self.refuse(node, f"{path}.match", "missing", "what holds for every call belongs into spec.default")
        if not entries and isinstance(node.value, Entries):
            self.refuse(node, path, "says nothing about the calls it matches", "add a section, or remove it")
        told = Route(match=match, sections=self.said(entries, path, name))
        if match is not _BAD:
            for field, message, hint in told.contradictions():
                self.refuse(entries[field], f"{path}.{field}", message, hint)
        return told

    def sections(self, node: Node, path: str, name: str) -> Sections:
        """The sections of one place."""
        return self.said(self.mapping(node, path, tuple(SECTIONS)), path, name)

    def said(self, entries: Mapping[str, Entry], path: str, name: str) -> Sections:
        """The sections of one place, each read, and checked against each other."""
        found = {key: self.section(key, entry.node, f"{path}.{key}") for key, entry in entries.items()}
        for key in ("mirror", "fallback"):
            if isinstance(held := found.get(key), (Mirror, Fallback)) and held.service == name:
                self.refuse(entries[key].node, f"{path}.{key}.service", f"{name} itself", "another service")
        sections = Sections(**{key: value for key, value in found.items() if value is not _BAD})
        for field, message, hint in sections.contradictions():
            self.refuse(entries[field], f"{path}.{field}", message, hint)
        return sections

    def section(self, key: str, node: Node, path: str) -> Any:
        """One section, OFF, or _BAD."""
        form = SECTIONS[key]
        if not isinstance(form, Nested):
            return self.take(form, node, path)
        if node.value is False or node.value == "off":
            return OFF
        if node.value is None:
            return self.refuse(node, path, "says nothing", "write off, or leave it out")
        if node.value is True or node.value == "on":
            return self.refuse(node, path, f"{self.shown(node)} says nothing", "write {} for the defaults")
        return self.take(form, node, path)

    def take(self, form: Form, node: Node, path: str) -> Any:
        """What a node stands for, or _BAD."""
        if isinstance(form, Nested):
            return self.nested(form, node, path)
        if isinstance(form, ListOf):
            return self.list_of(form, node, path)
        if isinstance(form, MapOf):
            return self.map_of(form, node, path)
        return self.leaf(form, node, path)

    def leaf(self, form: Leaf, node: Node, path: str) -> Any:
        """A value without parts."""
        value = self.plain(node, path)
        if value is _BAD:
            return _BAD
        try:
            return form.read(value)
        except Misfit as misfit:
            return self.refuse(node, path, str(misfit), misfit.hint)

    def nested(self, form: Nested, node: Node, path: str) -> Any:
        """A mapping of fields, or what may stand for it."""
        fields = fields_of(form.of)
        found: dict[str, Any] = {}
        if isinstance(node.value, Entries):
            for key, entry in self.mapping(node, path, tuple(fields)).items():
                if entry.node.value is None and fields[key].optional:
                    found[key] = None
                else:
                    found[key] = self.take(fields[key].form, entry.node, f"{path}.{key}")
            for key, field in fields.items():
                if field.default is REQUIRED and not any(entry.key == key for entry in node.value):
                    found[key] = self.refuse(node, f"{path}.{key}", "missing", field.doc.rstrip("."))
        elif form.sentence and isinstance(node.value, str):
            try:
                return form.sentence(node.value)
            except Misfit as misfit:
                return self.refuse(node, path, str(misfit), misfit.hint)
        elif form.scalar and not isinstance(node.value, list):
            found[form.scalar] = self.take(fields[form.scalar].form, node, path)
        else:
            return self.refuse(node, path, f"{self.shown(node)} is no mapping", "of " + ", ".join(fields))
        if any(value is _BAD for value in found.values()):
            return _BAD
        return self.consistent(form.of(**found), node, path)

    def consistent(self, section: Any, node: Node, path: str) -> Any:
        """The section, unless it contradicts itself."""
        if not hasattr(section, "contradictions"):
            return section
        entries = {entry.key: entry for entry in node.value} if isinstance(node.value, Entries) else {}
        kept = section
        for field, message, hint in section.contradictions():
            at = entries[field].node if field in entries else node
            kept = self.refuse(at, f"{path}.{field}" if field else path, message, hint)
        return kept

    def list_of(self, form: ListOf, node: Node, path: str) -> Any:
        """Several of one leaf, or one alone."""
        if not isinstance(node.value, list):
            alone = self.leaf(form.each, node, path)
            return alone if alone is _BAD else (alone,)
        if not form.low <= len(node.value) <= form.high:
            return self.refuse(node, path, f"{len(node.value)} entries", f"{form.low} to {form.high}")
        found = [self.leaf(form.each, one, f"{path}[{index}]") for index, one in enumerate(node.value)]
        for index, one in enumerate(found):
            if one is not _BAD and one in found[:index]:
                found[index] = self.refuse(
                    node.value[index],
                    f"{path}[{index}]",
                    f"{self.shown(node.value[index])} appears twice",
                    "say it once",
                )
        return _BAD if any(one is _BAD for one in found) else tuple(found)

    def map_of(self, form: MapOf, node: Node, path: str) -> Any:
        """Texts to values of one leaf."""
        if not isinstance(node.value, Entries):
            return self.refuse(node, path, f"{self.shown(node)} is no mapping", "KEY: VALUE")
        if not form.low <= len(node.value) <= form.high:
            return self.refuse(node, path, f"{len(node.value)} entries", f"{form.low} to {form.high}")
        found: dict[Any, Any] = {}
        for entry in node.value:
            at = f"{path}.{entry.key}"
            key = self.leaf(form.key, Node(entry.key, entry.line, entry.column), at)
            value = self.leaf(form.each, entry.node, at)
            if key in found and key is not _BAD:
                value = self.refuse(entry, at, "appears twice", "say it once")
            found[key] = value
        return _BAD if _BAD in found or _BAD in found.values() else tuple(sorted(found.items()))

    def mapping(self, node: Node, path: str, known: Iterable[str]) -> dict[str, Entry]:
        """The entries of a mapping that may be there; unknown and double ones are noted."""
        if not isinstance(node.value, Entries):
            self.refuse(node, path, f"{self.shown(node)} is no mapping", "of " + ", ".join(known))
            return {}
        found: dict[str, Entry] = {}
        for entry in node.value:
            at = f"{path}.{entry.key}" if path else entry.key
            if entry.key not in known:
                self.refuse(entry, at[:256], "unknown field", did_you_mean(entry.key, known))
            elif entry.key in found:
                self.refuse(entry, at, "appears twice", f"first in line {found[entry.key].line}")
            else:
                found[entry.key] = entry
        return found

    def plain(self, node: Node, path: str) -> Json:
        """A node's value as JSON has it, or _BAD for a key that appears twice."""
        if isinstance(node.value, list):
            values = [self.plain(one, path) for one in node.value]
            return _BAD if any(one is _BAD for one in values) else values
        if not isinstance(node.value, Entries):
            return node.value
        found: dict[str, Json] = {}
        for entry in node.value:
            if entry.key in found:
                return self.refuse(entry, f"{path}.{entry.key}", "appears twice", "say it once")
            found[entry.key] = self.plain(entry.node, f"{path}.{entry.key}")
        return _BAD if any(one is _BAD for one in found.values()) else found

    def shown(self, node: Node) -> str:
        """A node's value as its author would know it again."""
        if isinstance(node.value, Entries):
            return "a mapping"
        return shown(node.value)
