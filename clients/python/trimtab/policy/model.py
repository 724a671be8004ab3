"""A policy document: what holds by default for calls to a service, and what holds for some of them instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trimtab.policy.forms import Contradiction, ListOf, MapOf, Text, form
from trimtab.policy.sections import Sections
from trimtab.policy.words import HEADER, METHOD

API_VERSION = "trimtab/v1"
KIND = "ServicePolicy"
EVERY = "*"  # the name of the document that holds for all services of its namespace

NOTHING = Sections()
PATH = Text(512, r"/[^*?#\s]*\*?", "a path as /v1/orders, or /v1/* for all below")

MAX_BYTES = 256 * 1024  # of a text that people write
MAX_CANONICAL_BYTES = 512 * 1024  # of the same with every field written out
MAX_ROUTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which calls a route is for: all that is said must fit. Several values of one field: any of them.

    ``method``: an HTTP method in capitals, as it is sent; the name of an RPC (``Charge``) or its full one
    (``shop.Orders/Charge``); or what a guarded function calls itself. Compared exactly. ``path``: an HTTP path without
    its query; ``*`` at the end stands for any rest, also none. ``header``: exact values, ``*`` for any; in gRPC,
    metadata. ``caller``: the name that the calling program gives itself.
    """

    method: tuple[str, ...] = form(ListOf(METHOD, 1, 32), (), "HTTP method, or name of an RPC; any of those listed.")
    path: tuple[str, ...] = form(ListOf(PATH, 1, 32), (), "HTTP path, without the query; * at its end for any rest.")
    header: tuple[tuple[str, str], ...] = form(
        MapOf(HEADER, Text(512), 1, 16), (), "Header (gRPC: metadata) to value; * for any value. All must fit."
    )
    caller: tuple[str, ...] = form(ListOf(Text(128), 1, 32), (), "Name of the calling program.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What holds for the calls that fit ``match`` instead of the default. The first route that says a section decides it."""

    match: Match
    sections: Sections

    def contradictions(self) -> Iterator[Contradiction]:
        """What would never apply."""
        if self.match.caller and self.sections.server is not None:
            message = "never applies: servers do not know their callers by name"
            yield Contradiction("server", message, "match a header that these callers send")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePolicy:
    """One document. ``name`` is the callee's, or ``*`` for every service of the namespace."""

    namespace: str
    name: str
    default: Sections = NOTHING
    routes: tuple[Route, ...] = ()

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
