"""Entity tags and preconditions (RFC 9110): who writes a document says which state of it they have seen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Header
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from controlplane.errors import Code, TrimtabError, Violation

# For an operation's OpenAPI entry.
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "The reader holds it already (`If-None-Match`)."}}

_LIST = re.compile(r'\s*((W/)?"[\x21\x23-\x7e\x80-\xff]*")\s*(,|$)')
_REVISION = re.compile(r'"(\d{1,19})"')


def strong(revision: int) -> str:
    """The tag of a resource whose whole content is given by a store revision."""
    return f'"{revision}"'


def fresh(headers: Mapping[str, str], tag: str) -> bool:
    """Whether the reader already holds what ``tag`` names (``If-None-Match`` of a read)."""
    value = headers.get("if-none-match", "")
    return bool(value) and (
        value.strip() == "*" or tag in {held.removeprefix("W/") for held in _tags(value, "If-None-Match")}
    )


def answer(model: BaseModel, tag: str, request: Request, response: Response) -> BaseModel | Response:
    """``model`` under its tag, or 304 to a reader that holds it already."""
    if fresh(request.headers, tag):
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return model


def expected(headers: Mapping[str, str], current: int | None) -> int | None:
    """The revision that a write says it replaces: 0 for none, None for whichever there is.

    ``current`` is the revision of what is there, None for nothing. Raises PRECONDITION_REQUIRED when the write says nothing,
    PRECONDITION when what it says cannot hold, and INVALID for what is no tag.
    """
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if (match is None) == (none_match is None):
        raise TrimtabError(
            Code.PRECONDITION_REQUIRED,
            "say what this write replaces",
            hint='If-Match: "REVISION" (the ETag you read) or * (whatever is there), or If-None-Match: * (nothing yet)',
        )
    if none_match is not None:
        if none_match.strip() != "*":
            raise _malformed("If-None-Match", "a write takes only *")
        return 0
    assert match is not None
    if match.strip() == "*":
        if current is None:
            raise TrimtabError(Code.PRECONDITION, "there is nothing to replace", hint="create it with If-None-Match: *")
        return None
    revisions = {int(found[1]) for tag in _tags(match, "If-Match") if (found := _REVISION.fullmatch(tag))}
    if len(revisions) == 1:
        return revisions.pop()
    if current in revisions:
        return current
    raise TrimtabError(Code.PRECONDITION, "none of these is the current state", hint="read it again and use its ETag")


async def documented(
    if_match: Annotated[
        str | None, Header(description='`"REVISION"` that is replaced, or `*` for whichever there is.')
    ] = None,
    if_none_match: Annotated[str | None, Header(description="`*`: only if there is none yet.")] = None,
) -> None:
    """Dependency that documents what ``expected`` reads; that one tells the two apart and refuses what is neither."""


def refuse(headers: Mapping[str, str]) -> None:
    """For writes that replace an intent as a whole: raises INVALID rather than ignoring a precondition."""
    named = [name for name in ("If-Match", "If-None-Match", "If-Unmodified-Since") if name in headers]
    if named:
        places = [Violation(f"header.{name}", "this write takes no precondition", "leave it out") for name in named]
        raise TrimtabError(Code.INVALID, "the request was refused", violations=places)


def _tags(value: str, header: str) -> list[str]:
    tags, at = [], 0
    while at < len(value):
        found = _LIST.match(value, at)
        if found is None:
            raise _malformed(header, f"{value[:64]!r} is not an entity tag")
        tags.append(found[1])
        at = found.end()
    return tags


def _malformed(header: str, message: str) -> TrimtabError:
    place = Violation(f"header.{header}", message, 'quoted, as "42", or *')
    return TrimtabError(Code.INVALID, "the request was refused", violations=[place])
