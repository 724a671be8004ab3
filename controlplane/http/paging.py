"""Pages of a listing. A token names the last item seen, so a page stays right when items come and go meanwhile."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from controlplane.errors import Code, TrimtabError, Violation

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

Item = TypeVar("Item")
Key = tuple[str, ...]


class NoQuery(BaseModel):
    """An operation without query parameters refuses any."""

    model_config = ConfigDict(extra="forbid")


async def no_query(_: Annotated[NoQuery, Query()]) -> None:
    """Dependency of an operation without query parameters."""


class PageQuery(BaseModel):
    """How much of a listing, and from where."""

    model_config = ConfigDict(extra="forbid")

    page_size: int = Field(DEFAULT_PAGE_SIZE, ge=1, le=MAX_PAGE_SIZE, description="Items on one page.")
    page_token: str = Field("", max_length=4096, description="`next_page_token` of the page before.")


class ListQuery(PageQuery):
    """A page of a listing, or all of it and what follows."""

    watch: bool = Field(False, description="Answer with server-sent events: everything, then each change.")

    def refuse_paged_watch(self) -> None:
        """A watch sends everything: raises INVALID when part of it was asked for."""
        if self.watch and self.model_fields_set & {"page_size", "page_token"}:
            places = [
                Violation(f"query.{name}", "a watch has no pages", "leave it out")
                for name in sorted(self.model_fields_set - {"watch"})
            ]
            raise TrimtabError(Code.INVALID, "the request was refused", violations=places)


class WatchQuery(BaseModel):
    """A single resource, or it and what becomes of it."""

    model_config = ConfigDict(extra="forbid")

    watch: bool = Field(False, description="Answer with server-sent events: the resource, then each change.")


def page(items: Sequence[Item], key: Callable[[Item], Key], query: PageQuery, *, of: str) -> tuple[list[Item], str]:
    """One page of ``items``, and the next page's token ("" at the end).

    ``items`` are sorted by ``key``; ``of`` names the listing: a token of another one is refused with INVALID.
    """
    after = _after(query.page_token, of) if query.page_token else ()
    rest = [item for item in items if key(item) > after]
    shown = rest[: query.page_size]
    return shown, _token(of, key(shown[-1])) if len(rest) > len(shown) else ""


def _token(of: str, last: Key) -> str:
    return base64.urlsafe_b64encode("\n".join((of, *last)).encode()).decode().rstrip("=")


def _after(token: str, of: str) -> Key:
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raw = ""
    listing, *last = raw.split("\n")
    if not last or listing != of:
        place = Violation("query.page_token", "not a token of this listing", "pass on next_page_token as it was given")
        raise TrimtabError(Code.INVALID, "the request was refused", violations=[place])
    return tuple(last)
