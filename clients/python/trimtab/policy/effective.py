"""Which sections hold for a call: service routes, service default, namespace routes, namespace default, built-in.

Each section is decided on its own, by the first layer that fits the call and says it; and whole, never field by field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from trimtab.policy.builtin import BUILT_IN
from trimtab.policy.model import Match, ServicePolicy
from trimtab.policy.sections import OFF, SECTIONS, Sections

_REMEMBERED = 1024  # methods of a service are few; whoever makes them up must not fill the memory
_NO_HEADERS: Mapping[str, str] = {}


class Origin(NamedTuple):
    """Where a value comes from: document ``shop/orders``, ``shop/*`` or ``built-in``; place ``routes[1]``, ``default``."""

    document: str
    place: str

    def __str__(self) -> str:
        return f"{self.document} {self.place}".rstrip()


BUILT_IN_ORIGIN = Origin("built-in", "")


class Layer(NamedTuple):
    """What one place of one document says, and for which calls; ``match`` None: for all."""

    origin: Origin
    match: Match | None
    sections: Sections


class Request(NamedTuple):
    """What is known of a call. Header names are in lower case; ``path`` is without the query, empty outside of HTTP."""

    method: str = ""
    path: str = ""
    headers: Mapping[str, str] = _NO_HEADERS
    caller: str = ""


class Effective(NamedTuple):
    """What holds for one section, and who says so. None: it is switched off there, or nobody says it."""

    value: Any
    origin: Origin


def layers(service: ServicePolicy | None, namespace: ServicePolicy | None) -> tuple[Layer, ...]:
    """All that may hold for calls to a service, in the order of precedence."""
    found: list[Layer] = []
    for document in (service, namespace):
        if document is not None:
            found.extend(
                Layer(Origin(str(document), f"routes[{index}]"), route.match, route.sections)
                for index, route in enumerate(document.routes)
            )
            found.append(Layer(Origin(str(document), "default"), None, document.default))
    return (*found, Layer(BUILT_IN_ORIGIN, None, BUILT_IN))


def forebears(layers: Iterable[Layer], before: Iterable[Layer]) -> dict[Origin, Origin]:
    """Where the layers stood ``before``, for those that did: a route for the same calls may have got another place.

    Of several for the same calls it is the one that said the most of the same sections. A route whose match is new to its
    document is the one that stood in its place, unless that one is elsewhere now.
    """
    stood, stand = _by_match(before), _by_match(layers)
    found: dict[Origin, Origin] = {}
    others: list[Origin] = []
    for match, now in stand.items():
        then = stood.get(match, [])
        if len(now) > 1 or len(then) > 1:
            # Those that have the most in common first.
            now = sorted(now, key=lambda layer: -max((_common(layer, each) for each in then), default=0))
        for layer in now:
            if then:
                same = max(then, key=partial(_common, layer)) if len(then) > 1 else then[0]
                then.remove(same)
                found[layer.origin] = same.origin
            else:
                others.append(layer.origin)
    left = {layer.origin for same in stood.values() for layer in same}
    found.update((origin, origin) for origin in others if origin in left)
    return found


def _by_match(layers: Iterable[Layer]) -> dict[tuple[str, Match | None], list[Layer]]:
    found: dict[tuple[str, Match | None], list[Layer]] = {}
    for layer in layers:
        found.setdefault((layer.origin.document, layer.match), []).append(layer)
    return found


def _common(one: Layer, other: Layer) -> int:
    """How many sections both say."""
    return sum(
        getattr(one.sections, name) is not None and getattr(other.sections, name) is not None for name in SECTIONS
    )


def resolve(layers: Iterable[Layer], request: Request) -> dict[str, Effective]:
    """What holds for a call, by the name of the section."""
    return settle(layer for layer in layers if layer.match is None or fits(layer.match, request))


def settle(layers: Iterable[Layer]) -> dict[str, Effective]:
    """What layers say together that all fit the call, by the name of the section; the first that says it decides."""
    found: dict[str, Effective] = {}
    for layer in layers:
        for name in SECTIONS:
            value = getattr(layer.sections, name)
            if value is not None and name not in found:
                found[name] = Effective(None if value is OFF else value, layer.origin)
    return {name: found.get(name) or Effective(None, BUILT_IN_ORIGIN) for name in SECTIONS}


def fits(match: Match, request: Request) -> bool:
    """Whether a route is for the call: all that its match says must fit.

    Methods are compared exactly, upper and lower case: HTTP's are case-sensitive (RFC 9110, 9.1), and so are names.
    """
    return (
        (not match.caller or request.caller in match.caller)
        and (not match.method or _method_fits(match.method, request.method))
        and (not match.path or _path_fits(match.path, request.path))
        and (not match.header or _headers_fit(match.header, request.headers))
    )


def _method_fits(wanted: Sequence[str], method: str) -> bool:
    full = method.removeprefix("/")
    return full in wanted or full.rpartition("/")[2] in wanted


def _path_fits(wanted: Sequence[str], path: str) -> bool:
    return any(path.startswith(one[:-1]) if one.endswith("*") else path == one for one in wanted)


def _headers_fit(wanted: Sequence[tuple[str, str]], headers: Mapping[str, str]) -> bool:
    return all(name in headers and value in ("*", headers[name]) for name, value in wanted)


class _Candidate(NamedTuple):
    """A layer that fits a method, and what else must: ``paths`` None: any path."""

    layer: int
    paths: frozenset[str] | None
    beginnings: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]


class Chooser:
    """Which of a service's layers fit a call of one caller, as fast as can be told.

    Made once for each change of the documents. Layers for other callers are never looked at, and a method for which
    neither path nor headers matter is answered from memory.
    """

    __slots__ = ("_candidates", "_known", "_layers", "needs_headers", "needs_path")

    def __init__(self, layers: Sequence[Layer], caller: str) -> None:
        self._layers = [
            (layer.match.method if layer.match is not None else (), _candidate(index, layer.match))
            for index, layer in enumerate(layers)
            if layer.match is None or not layer.match.caller or caller in layer.match.caller
        ]
        self.needs_path = any(candidate.paths is not None for _, candidate in self._layers)
        self.needs_headers = any(candidate.headers for _, candidate in self._layers)
        self._known: dict[str, tuple[int, ...]] = {}
        self._candidates: dict[str, tuple[_Candidate, ...]] = {}

    def choose(self, method: str, path: str = "", headers: Mapping[str, str] = _NO_HEADERS) -> tuple[int, ...]:
        """The indexes of the layers that fit, in their order. What is not needed need not be given."""
        return self._known.get(method) or self._look(method, path, headers)

    def settled(self, method: str) -> bool:
        """Whether the method alone decides, so that its answer holds for every call of it."""
        return method in self._known

    def _look(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, ...]:
        found = []
        for layer, paths, beginnings, wanted in self._candidates.get(method) or self._learn(method):
            if paths is None or path in paths or path.startswith(beginnings):
                for name, value in wanted:
                    held = headers.get(name)
                    if held is None or value not in ("*", held):
                        break
                else:
                    found.append(layer)
        return tuple(found)

    def _learn(self, method: str) -> tuple[_Candidate, ...]:
        """The layers that fit the method; remembered, as the answer itself when nothing else matters to them."""
        candidates = tuple(
            candidate for methods, candidate in self._layers if not methods or _method_fits(methods, method)
        )
        if len(self._candidates) >= _REMEMBERED:
            self._candidates.clear()
            self._known.clear()
        self._candidates[method] = candidates
        if all(candidate.paths is None and not candidate.headers for candidate in candidates):
            self._known[method] = tuple(candidate.layer for candidate in candidates)
        return candidates


def _candidate(index: int, match: Match | None) -> _Candidate:
    if match is None or not match.path:
        return _Candidate(index, None, (), match.header if match is not None else ())
    beginnings = tuple(path[:-1] for path in match.path if path.endswith("*"))
    return _Candidate(index, frozenset(match.path), beginnings, match.header)
