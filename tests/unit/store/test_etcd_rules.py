"""The rules of the etcd client that need no etcd: what may be repeated, what an error means, which versions to trust."""

from __future__ import annotations

import grpc
import pytest

from controlplane.errors import Code
from controlplane.store.etcd import rpc_pb2 as pb
from controlplane.store.etcd.backoff import FIRST, LAST, Backoff
from controlplane.store.etcd.failure import CallFailed, Cause, classify
from controlplane.store.etcd.transaction import may_repeat, outcome_of_first, range_end
from controlplane.store.etcd.versions import hazard, progress_in_order
from controlplane.store.port import Compare, Delete, Operator, Put, Target, Transaction

ABSENT = Compare("a", Target.CREATE_REVISION, Operator.EQUAL, 0)
PRESENT = Compare("a", Target.CREATE_REVISION, Operator.GREATER, 0)
AT_7 = Compare("a", Target.MOD_REVISION, Operator.EQUAL, 7)
NEVER_WRITTEN = Compare("a", Target.MOD_REVISION, Operator.EQUAL, 0)
HOLDS_V = Compare("a", Target.VALUE, Operator.EQUAL, b"v")
ON_LEASE = Compare("a", Target.LEASE, Operator.EQUAL, 5)
PUT, OTHER, GONE = Put("a", b"v"), Put("b", b"v"), Delete("a")


@pytest.mark.parametrize(
    ("compare", "operation", "spent"),
    [
        (ABSENT, PUT, True),
        (ABSENT, GONE, False),
        (ABSENT, OTHER, False),
        (PRESENT, PUT, False),
        (PRESENT, GONE, True),
        (AT_7, PUT, True),
        (AT_7, GONE, True),
        (AT_7, OTHER, False),
        (NEVER_WRITTEN, PUT, True),
        (NEVER_WRITTEN, GONE, False),
        (HOLDS_V, PUT, False),
        (ON_LEASE, PUT, False),
    ],
)
def test_a_write_may_be_repeated_only_when_it_spends_its_guard(
    compare: Compare, operation: Put | Delete, spent: bool
) -> None:
    assert may_repeat(Transaction((compare,), (operation,))) is spent


def test_a_repetition_that_would_be_too_large_is_not_made() -> None:
    many = tuple(Put(f"k{i}", b"") for i in range(127))
    assert may_repeat(Transaction((ABSENT,), (PUT, *many)))
    assert not may_repeat(Transaction((ABSENT,), (PUT, *many), read=("z",)))


def found(*kvs: pb.KeyValue) -> pb.ResponseOp:
    return pb.ResponseOp(response_range=pb.RangeResponse(kvs=kvs))


def answer(*responses: pb.ResponseOp) -> pb.TxnResponse:
    return pb.TxnResponse(header=pb.ResponseHeader(revision=50), succeeded=False, responses=responses)


def test_the_first_try_is_recognized_by_all_its_effects_at_one_revision() -> None:
    transaction = Transaction((ABSENT,), (Put("a", b"v", 5), Put("b", b"w"), Delete("c")), read=("r",))
    a = pb.KeyValue(key=b"a", value=b"v", lease=5, mod_revision=40)
    b = pb.KeyValue(key=b"b", value=b"w", mod_revision=40)
    r = pb.KeyValue(key=b"r", value=b"", mod_revision=3)
    outcome = outcome_of_first(transaction, answer(found(r), found(a), found(b), found()))
    assert outcome is not None
    assert (outcome.succeeded, outcome.revision, list(outcome.found)) == (True, 40, ["r"])


@pytest.mark.parametrize(
    "responses",
    [
        (found(), found()),
        (found(pb.KeyValue(key=b"a", value=b"x", mod_revision=40)), found()),
        (found(pb.KeyValue(key=b"a", value=b"v", lease=9, mod_revision=40)), found()),
        (found(pb.KeyValue(key=b"a", value=b"v", mod_revision=40)), found(pb.KeyValue(key=b"c"))),
    ],
)
def test_anything_else_in_place_leaves_the_first_try_unknown(responses: tuple[pb.ResponseOp, ...]) -> None:
    assert outcome_of_first(Transaction((ABSENT,), (PUT, Delete("c"))), answer(*responses)) is None


def test_effects_of_different_revisions_are_not_one_transactions() -> None:
    a = pb.KeyValue(key=b"a", value=b"v", mod_revision=40)
    b = pb.KeyValue(key=b"b", value=b"v", mod_revision=41)
    assert outcome_of_first(Transaction((ABSENT,), (PUT, OTHER)), answer(found(a), found(b))) is None


def test_what_a_lost_first_try_replaced_cannot_be_told() -> None:
    a = pb.KeyValue(key=b"a", value=b"v", mod_revision=40)
    assert outcome_of_first(Transaction((AT_7,), (PUT,), read=("a",)), answer(found(a), found(a))) is None


@pytest.mark.parametrize(("prefix", "end"), [("a", b"b"), ("a/", b"a0"), ("ÿ", b"\xc3\xc0"), ("", b"\0")])
def test_a_prefix_ends_where_its_neighbour_begins(prefix: str, end: bytes) -> None:
    assert range_end(prefix) == end


STATUS = grpc.StatusCode


@pytest.mark.parametrize(
    ("status", "detail", "cause", "code", "uncertain_code"),
    [
        (STATUS.UNAVAILABLE, "etcdserver: no leader", Cause.UNREACHABLE, Code.STORE_UNAVAILABLE, None),
        (STATUS.UNAVAILABLE, "failed to connect to all addresses", Cause.UNREACHABLE, Code.STORE_UNAVAILABLE, None),
        (STATUS.UNAVAILABLE, "Socket closed", Cause.BROKEN, Code.STORE_UNAVAILABLE, Code.STORE_TIMEOUT),
        (STATUS.UNAVAILABLE, "etcdserver: request timed out", Cause.BROKEN, Code.STORE_UNAVAILABLE, Code.STORE_TIMEOUT),
        (STATUS.UNKNOWN, "Stream removed", Cause.BROKEN, Code.STORE_UNAVAILABLE, Code.STORE_TIMEOUT),
        (STATUS.UNKNOWN, "raft proposal dropped", Cause.UNREACHABLE, Code.STORE_UNAVAILABLE, None),
        (STATUS.DEADLINE_EXCEEDED, "Deadline Exceeded", Cause.TIMEOUT, Code.STORE_TIMEOUT, Code.STORE_TIMEOUT),
        (STATUS.UNAUTHENTICATED, "etcdserver: invalid auth token", Cause.TOKEN, Code.STORE_REFUSED, None),
        (STATUS.INVALID_ARGUMENT, "etcdserver: user name is empty", Cause.TOKEN, Code.STORE_REFUSED, None),
        (STATUS.PERMISSION_DENIED, "etcdserver: permission denied", Cause.REFUSED, Code.STORE_REFUSED, None),
        (
            STATUS.RESOURCE_EXHAUSTED,
            "etcdserver: mvcc: database space exceeded",
            Cause.REFUSED,
            Code.STORE_REFUSED,
            None,
        ),
        (STATUS.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Cause.UNREACHABLE, Code.STORE_UNAVAILABLE, None),
        (
            STATUS.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision has been compacted",
            Cause.COMPACTED,
            Code.STORE_COMPACTED,
            None,
        ),
        (
            STATUS.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision is a future revision",
            Cause.REFUSED,
            Code.STORE_REFUSED,
            None,
        ),
        (STATUS.NOT_FOUND, "etcdserver: requested lease not found", Cause.LEASE, Code.SESSION_LOST, None),
        (STATUS.UNIMPLEMENTED, "Method not found!", Cause.REFUSED, Code.STORE_REFUSED, None),
    ],
)
def test_every_error_of_etcd_has_one_meaning(
    status: grpc.StatusCode, detail: str, cause: Cause, code: Code, uncertain_code: Code | None
) -> None:
    error = grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(), details=detail)
    failure = classify("m0:2379", error)
    assert failure.cause is cause
    told = failure.error()
    assert told.code is code
    assert "m0:2379" in told.message
    assert detail in told.message
    assert cause.uncertain is (uncertain_code is not None)
    if uncertain_code is not None:
        assert failure.error(uncertain=True).code is uncertain_code


def test_a_failure_after_a_lost_answer_is_never_called_one_that_wrote_nothing() -> None:
    later = CallFailed(Cause.UNREACHABLE, "m1:2379", "failed to connect")
    assert later.error(uncertain=True).code is Code.STORE_TIMEOUT
    refused = CallFailed(Cause.REFUSED, "m1:2379", "etcdserver: permission denied")
    assert refused.error(uncertain=True).code is Code.STORE_TIMEOUT


def test_waiting_grows_to_a_second_and_starts_anew() -> None:
    backoff = Backoff()
    waits = [backoff.next() for _ in range(12)]
    assert all(FIRST / 2 <= wait <= LAST for wait in waits)
    assert all(LAST / 2 <= wait <= LAST for wait in waits[5:])
    backoff.reset()
    assert backoff.next() <= FIRST


@pytest.mark.parametrize(
    ("version", "trusted"),
    [
        ("3.4.23", False),
        ("3.4.25", True),
        ("3.5.1", False),
        ("3.5.7", False),
        ("3.5.8", True),
        ("3.6.0", True),
        ("3.6.0-rc.1", True),
        ("strange", False),
    ],
)
def test_progress_is_trusted_only_where_it_is_in_order(version: str, trusted: bool) -> None:
    assert progress_in_order(version) is trusted


@pytest.mark.parametrize(
    ("version", "dangerous"), [("3.4.23", False), ("3.5.0", True), ("3.5.1", True), ("3.5.16", False)]
)
def test_versions_that_lose_writes_are_known(version: str, dangerous: bool) -> None:
    assert bool(hazard(version)) is dangerous
