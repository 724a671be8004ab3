"""Where each record lives in the key space.

::

    /{prefix}/live/{kind}/{path…}      everything that replicas watch: one watch on ``…/live/`` covers it
    /{prefix}/sessions/{path…}         sessions: written often, read only by the replica that resumes one

A path segment that holds a slash, a percent sign or anything unprintable is percent-encoded, so that it can never
reach into a neighbour's branch and an operator can still read it.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from controlplane.core.model import WATCHED, Kind, Ref
from controlplane.errors import Code, TrimtabError

# What stays readable as it is; quote() itself keeps letters, digits and "_.-~".
_PLAIN = ":@+=, "
# Nearly every segment needs no quoting; to see that costs a tenth of quote(), and each request makes several keys.
_NEEDS_NONE = re.compile(r"[A-Za-z0-9_.~:@+=, -]*")
_LIVE = {kind.value: kind for kind in WATCHED}


class Keys:
    """The key space below ``prefix``, usually ``trimtab/{mesh}``; leading and trailing slashes don't matter."""

    def __init__(self, prefix: str) -> None:
        inner = prefix.strip("/")
        if not inner:
            raise TrimtabError(Code.SETTINGS, "the store's key prefix is empty", hint="for instance trimtab/default")
        self.root = f"/{inner}/"
        self.live = f"{self.root}live/"
        self.sessions = f"{self.root}{Kind.SESSION.value}/"

    def branch(self, kind: Kind) -> str:
        """The prefix below which all records of ``kind`` live."""
        return self.sessions if kind is Kind.SESSION else f"{self.live}{kind.value}/"

    def key(self, ref: Ref) -> str:
        """The key of a record. Raises ``INVALID`` when the path or one of its segments is empty."""
        if not ref.path or not all(ref.path):
            raise TrimtabError(Code.INVALID, f"{ref} is no place for a record: a part of its path is empty")
        return self.branch(ref.kind) + "/".join([_quoted(segment) for segment in ref.path])

    def ref(self, key: str) -> Ref | None:
        """The record that lives at ``key``; None for a kind that this version does not know.

        Raises ``MALFORMED`` for a key outside this key space or without a path.
        """
        if key.startswith(self.sessions):
            kind: Kind | None = Kind.SESSION
            rest = key[len(self.sessions) :]
        elif key.startswith(self.live):
            branch, _, rest = key[len(self.live) :].partition("/")
            kind = _LIVE.get(branch)
        else:
            raise TrimtabError(Code.MALFORMED, f"key {key!r} lies outside {self.root!r}")
        path = tuple(rest.split("/"))
        if "%" in rest:
            path = tuple([unquote(segment) for segment in path])
        if not all(path):
            raise TrimtabError(Code.MALFORMED, f"key {key!r} names no record: a part of its path is empty")
        return None if kind is None else Ref(kind, path)


def _quoted(segment: str) -> str:
    return segment if _NEEDS_NONE.fullmatch(segment) else quote(segment, safe=_PLAIN)
