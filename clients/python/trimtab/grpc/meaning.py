"""What gRPC says, in the terms of the call path, and what the call path says over gRPC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grpc

from trimtab.calling.context import MIRRORED_HEADER, PRIORITY_HEADER
from trimtab.core.calling.call import Call
from trimtab.core.endpoints import Endpoint
from trimtab.core.orca import LOAD_HEADER, LoadReport
from trimtab.core.retrying.conditions import CONNECT_FAILURE, Outcome, outcome_of
from trimtab.core.retrying.schedule import PUSHBACK_KEY, read_pushback

Entries = Iterable[tuple[str, Any]]

IDEMPOTENCY_KEY = "idempotency-key"
REFUSED = Outcome(CONNECT_FAILURE, sent=False)
# The caller's own doing: it gave up, or asked for what cannot be sent.
CALLERS = Outcome("cancelled", failed=False, counted=False)

CANCELLED, DEADLINE = grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
# Source: "HTTP to gRPC Status Code Mapping" of the gRPC project.
_OF_HTTP = {
    "400": grpc.StatusCode.INTERNAL,
    "401": grpc.StatusCode.UNAUTHENTICATED,
    "403": grpc.StatusCode.PERMISSION_DENIED,
    "404": grpc.StatusCode.UNIMPLEMENTED,
    "429": UNAVAILABLE,
    "502": UNAVAILABLE,
    "503": UNAVAILABLE,
    "504": UNAVAILABLE,
}
_CONNECTING = "failed to connect to all addresses"
_RESOLVING = ("errors resolving ", "DNS resolution failed for ")


class Status(NamedTuple):
    """How an attempt ended that did not end well."""

    code: grpc.StatusCode
    details: str = ""
    initial: Sequence[tuple[str, Any]] = ()
    trailing: Sequence[tuple[str, Any]] = ()
    debug: str = ""

    def __str__(self) -> str:
        return f"{self.code.name}: {self.details}" if self.details else str(self.code.name)


def status_of(ended: Any) -> Status:
    """The status of a blocking call, or of an error, that is at its end."""
    return Status(
        ended.code() or grpc.StatusCode.UNKNOWN,
        ended.details() or "",
        tuple(ended.initial_metadata() or ()),
        tuple(ended.trailing_metadata() or ()),
    )


def outcome_of_status(call: Call, status: Status) -> Outcome:
    """What a status other than OK says of the callee."""
    if call.abort is not None and not call.abort.sent:
        return REFUSED
    if status.code is UNAVAILABLE and call.endpoint is not None and never_sent(status.details, call.endpoint):
        return REFUSED
    pushback = None
    if status.trailing:
        pushback = read_pushback([value for key, value in status.trailing if key == PUSHBACK_KEY])
    return outcome_of(status.code.name, pushback)


def never_sent(details: str, endpoint: Endpoint) -> bool:
    """Whether the details of an UNAVAILABLE say that no connection to ``endpoint`` could be made.

    gRPC has no other sign of it. A callee may hand the same words on from a callee of its own, but not with its own address
    in them, which is there for every connection that gRPC itself gave up. A stream that was unseen when its connection went
    away (GOAWAY) never comes here: gRPC sends it again by itself, on a new connection to the same endpoint. A refused stream
    does come, but in words that might as well be another's, so it counts as one that the callee may have seen.
    """
    if details.startswith(_CONNECTING):
        where = f":{endpoint.port}:"
        if endpoint.address.replace(".", "").isdigit():
            where = endpoint.address + where
        return where in details
    return details.startswith(_RESOLVING) and endpoint.address in details


def injected(outcome: Outcome) -> Status:
    """What a fault looks like that the policy asks for."""
    condition = outcome.condition
    if not outcome.sent:
        code = UNAVAILABLE
    elif condition.isdigit():
        code = _OF_HTTP.get(condition, grpc.StatusCode.UNKNOWN)
    else:
        code = grpc.StatusCode[condition]
    return Status(code, "injected by the service's policy")


class _NoMetadata(grpc.aio.Metadata):
    """What an awaited call bears that has no metadata, one for all where nobody adds any. gRPC would make one for each."""

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(())


NO_METADATA = _NoMetadata()


def with_priority(metadata: Entries | None, priority: str) -> Any:
    """Metadata that say how important a call is, unless they say so already."""
    told = tuple(metadata) if metadata is not None else ()
    return told if any(key == PRIORITY_HEADER for key, _ in told) else (*told, (PRIORITY_HEADER, priority))


def with_headers(metadata: Entries | None, told: Mapping[str, str]) -> Any:
    """Metadata with those that hooks have, in lower case as the wire has them, in place of the caller's own of the same name."""
    added = tuple((key.lower(), value) for key, value in told.items())
    names = {key for key, _ in added}
    return (*(entry for entry in metadata or () if entry[0] not in names), *added)


def with_mark(metadata: Entries | None) -> Any:
    """Metadata that say that a call is a mirrored one."""
    return (*(metadata if metadata is not None else ()), (MIRRORED_HEADER, "1"))


def load_of(trailing: Entries | None) -> LoadReport | None:
    """What the metadata behind an answer tell of the callee's load."""
    return next((LoadReport.from_text(value) for key, value in trailing or () if key == LOAD_HEADER), None)


def headers(metadata: Entries | None) -> Mapping[str, str]:
    """Metadata as policies match them."""
    return {key.lower(): value for key, value in metadata or () if isinstance(value, str)}


def marked(metadata: Entries | None) -> bool:
    """Whether the caller says with an idempotency key that sending the call twice does no harm."""
    return metadata is not None and any(key.lower() == IDEMPOTENCY_KEY for key, _ in metadata)
