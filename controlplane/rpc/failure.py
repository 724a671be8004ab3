"""A TrimtabError as the status of a call, with all of it in a trailer."""

from __future__ import annotations

import grpc

from controlplane.errors import TrimtabError
from controlplane.rpc import convert
from controlplane.transport.call import Aborted

TRAILER = "trimtab-error-bin"
_DETAILS_LIMIT = 1000


def aborted(error: TrimtabError) -> Aborted:
    """The status that ends a call with an error. The details are for people; the trailer carries the whole ``Error``."""
    return Aborted(
        getattr(grpc.StatusCode, error.code.grpc_status),
        str(error)[:_DETAILS_LIMIT],
        ((TRAILER, convert.error(error).SerializeToString()),),
    )
