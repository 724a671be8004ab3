"""Routes that can never decide anything, because an earlier one always does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trimtab.policy.model import Route
from trimtab.policy.sections import SECTIONS


def shadows(routes: Mapping[int, Route]) -> Iterator[tuple[int, str, int]]:
    """Each section that cannot apply: the route that says it, its name, and the first route that always decides it before.

    Judges field by field: what it tells is so, but a route that only several earlier ones cover together is not found.
    """
    earlier: list[tuple[int, _Reach]] = []
    for index, route in routes.items():
        reach = _Reach(route)
        undecided = set(reach.says)
        for before, wide in earlier:
            if not undecided.isdisjoint(wide.says) and wide.covers(reach):
                yield from ((index, name, before) for name in SECTIONS if name in undecided & wide.says)
                undecided -= wide.says
        earlier.append((index, reach))


class _Reach:
    """What a route says for which calls, in sets: the routes of a document are compared each with each."""

    __slots__ = ("beginnings", "callers", "headers", "methods", "paths", "says")

    def __init__(self, route: Route) -> None:
        match = route.match
        self.says = {name for name in SECTIONS if getattr(route.sections, name) is not None}
        self.callers = set(match.caller)
        self.methods = set(match.method)
        self.paths = set(match.path)
        self.beginnings = tuple(path[:-1] for path in match.path if path.endswith("*"))
        self.headers = dict(match.header)

    def covers(self, narrow: _Reach) -> bool:
        """Whether every call that fits the narrow one also fits this one, as far as their fields tell one by one."""
        return (
            (not self.callers or (bool(narrow.callers) and narrow.callers <= self.callers))
            and (not self.methods or (bool(narrow.methods) and all(map(self._has_method, narrow.methods))))
            and (not self.paths or (bool(narrow.paths) and all(map(self._has_path, narrow.paths))))
            and all(value in ("*", narrow.headers.get(name)) for name, value in self.headers.items())
            and self.headers.keys() <= narrow.headers.keys()
        )

    def _has_method(self, method: str) -> bool:
        return method in self.methods or method.rpartition("/")[2] in self.methods

    def _has_path(self, path: str) -> bool:
        return path in self.paths or path.startswith(self.beginnings)
