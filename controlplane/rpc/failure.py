"""A TrimtabError as the status of a call, with all of it in a trailer."""

from __future__ import annotations

from typing import NoReturn

import grpc

from controlplane.errors import TrimtabError
from controlplane.rpc import convert
from controlplane.transport.call import Call

TRAILER = "trimtab-error-bin"
_DETAILS_LIMIT = 1000


async def abort(context: Call, error: TrimtabError) -> NoReturn:
    """End a call with the error's status. The details are for people; the trailer carries the whole ``Error``."""
    await context.abort(
        getattr(grpc.StatusCode, error.code.grpc_status),
        str(error)[:_DETAILS_LIMIT],
        ((TRAILER, convert.error(error).SerializeToString()),),
    )
