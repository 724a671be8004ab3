"""Who a write says it comes from. Shown beside the intent; a name, not a proof."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request

from controlplane.errors import Code, TrimtabError, Violation

MAX_ACTOR = 128


# Dependencies are coroutines, here and elsewhere: FastAPI would have a thread run a function, and the write wait for it.
async def _actor(
    request: Request,
    trimtab_actor: Annotated[
        str,
        Header(description="Who you are, for those who come after you.", examples=["ana@desk"], max_length=MAX_ACTOR),
    ] = "",
) -> str:
    if not trimtab_actor.isprintable():
        place = Violation("header.trimtab-actor", "it has characters that cannot be printed")
        raise TrimtabError(Code.INVALID, "the request was refused", violations=[place])
    return trimtab_actor or f"http {request.client.host if request.client else 'unknown'}"


Actor = Annotated[str, Depends(_actor)]
