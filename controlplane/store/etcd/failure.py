"""What a failed call means: whether it may have been carried out, whether to ask another member, and what to tell."""

from __future__ import annotations

from enum import Enum

import grpc

from controlplane.errors import Code, TrimtabError


class Cause(Enum):
    """Why a call failed: (another try may help, the member may have carried it out)."""

    UNREACHABLE = ("unreachable", True, False)
    BROKEN = ("broken", True, True)
    TIMEOUT = ("timeout", True, True)
    TOKEN = ("token", True, False)
    COMPACTED = ("compacted", False, False)
    LEASE = ("lease", False, False)
    TOO_LARGE = ("too large", False, False)
    REFUSED = ("refused", False, False)

    def __init__(self, label: str, passing: bool, uncertain: bool) -> None:
        self.label = label
        self.passing = passing
        self.uncertain = uncertain


class CallFailed(Exception):
    """One call to one member failed."""

    def __init__(self, cause: Cause, endpoint: str, detail: str) -> None:
        super().__init__(f"etcd {endpoint}: {detail}")
        self.cause = cause
        self.endpoint = endpoint
        self.detail = detail

    def error(self, *, uncertain: bool = False) -> TrimtabError:
        """What the house is told. ``uncertain``: a write may have happened, in this try or an earlier one."""
        match self.cause:
            case Cause.COMPACTED:
                return TrimtabError(Code.STORE_COMPACTED, str(self), hint="list again")
            # Also after a lost try: what it may have written on the lease went with the lease.
            case Cause.LEASE:
                return TrimtabError(Code.SESSION_LOST, str(self), hint="the session ended; open a new one")
            case _ if uncertain:
                message = f"{self}; the write may or may not have happened"
                return TrimtabError(Code.STORE_TIMEOUT, message, hint="read again before writing again")
            case Cause.TIMEOUT:
                return TrimtabError(Code.STORE_TIMEOUT, str(self), hint=_AWAY)
            case Cause.UNREACHABLE | Cause.BROKEN:
                return TrimtabError(Code.STORE_UNAVAILABLE, str(self), hint=_AWAY)
            case _:
                return TrimtabError(Code.STORE_REFUSED, str(self), hint=_hint(self.detail))


_AWAY = "is etcd running, does it have a quorum, can it be reached?"

# etcd's messages are part of its API: its own clients tell errors apart by them. First match wins.
_BY_MESSAGE: tuple[tuple[str, Cause], ...] = (
    ("required revision has been compacted", Cause.COMPACTED),
    ("requested lease not found", Cause.LEASE),
    # Said before anything is proposed, or when the proposal was dropped.
    ("etcdserver: no leader", Cause.UNREACHABLE),
    ("etcdserver: not capable", Cause.UNREACHABLE),
    ("etcdserver: too many requests", Cause.UNREACHABLE),
    ("rpc not supported for learner", Cause.UNREACHABLE),
    ("raft proposal dropped", Cause.UNREACHABLE),
    ("invalid auth token", Cause.TOKEN),
    # Users were switched on after we connected without a token, or the token is older than the last change of users.
    ("user name is empty", Cause.TOKEN),
    ("revision of auth store is old", Cause.TOKEN),
    ("revision in header is old", Cause.TOKEN),
    ("larger than max", Cause.TOO_LARGE),
    ("request is too large", Cause.TOO_LARGE),
    ("failed to connect", Cause.UNREACHABLE),
    ("context deadline exceeded", Cause.TIMEOUT),
)

_BY_STATUS: dict[grpc.StatusCode, Cause] = {
    grpc.StatusCode.UNAVAILABLE: Cause.BROKEN,
    grpc.StatusCode.UNKNOWN: Cause.BROKEN,
    grpc.StatusCode.INTERNAL: Cause.BROKEN,
    grpc.StatusCode.CANCELLED: Cause.BROKEN,
    grpc.StatusCode.ABORTED: Cause.BROKEN,
    grpc.StatusCode.DEADLINE_EXCEEDED: Cause.TIMEOUT,
    grpc.StatusCode.UNAUTHENTICATED: Cause.TOKEN,
}

_HINTS: tuple[tuple[str, str], ...] = (
    ("database space exceeded", "compact, defragment and disarm the NOSPACE alarm, or raise --quota-backend-bytes"),
    ("permission denied", "grant the user a role that may read and write the mesh's prefix"),
    ("authentication failed", "the user or the password is wrong"),
    ("invalid auth token", "etcd does not take a fresh token either; do all members share their --auth-token setting?"),
    ("user name is empty", "etcd wants a user: set user and password"),
    ("too many operations", "split the change, or raise --max-txn-ops on every member"),
    ("too large", "make the value smaller, or raise --max-request-bytes on every member"),
    ("larger than max", "make the value smaller, or raise --max-request-bytes on every member"),
    ("corrupt", "a member's data is corrupt: replace that member"),
    ("Method not found", "is this an etcd v3 endpoint?"),
    ("Received http2 header with status", "is this an etcd v3 endpoint?"),
)


def classify(endpoint: str, error: grpc.aio.AioRpcError) -> CallFailed:
    """What a gRPC error of ``endpoint`` means."""
    detail = error.details() or error.code().name
    for message, cause in _BY_MESSAGE:
        if message in detail:
            return CallFailed(cause, endpoint, detail)
    return CallFailed(_BY_STATUS.get(error.code(), Cause.REFUSED), endpoint, detail)


def classify_reason(endpoint: str, reason: str) -> CallFailed:
    """What it means that a member cancelled a watch for ``reason``."""
    cause = next((cause for message, cause in _BY_MESSAGE if message in reason), None)
    if cause is None:
        cause = Cause.REFUSED if "permission denied" in reason else Cause.BROKEN
    return CallFailed(cause, endpoint, reason or "the watch was cancelled")


def _hint(detail: str) -> str:
    return next((hint for message, hint in _HINTS if message in detail), "")
