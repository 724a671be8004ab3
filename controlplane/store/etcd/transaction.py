"""Transactions on the wire, and what may be done when the answer to one is lost.

A write whose answer is lost may have happened. It is sent again only when it *spends its own guard*: once carried out,
one of its comparisons cannot hold any more (it writes a key whose revision it compares). Then a second run finds the
guard spent and changes nothing, and so does a first run that arrives late. ``Present`` alone is no such guard.

When the second run's comparisons fail, the guard was spent by our own first run or by somebody else. So the second run
reads back what was to be written: if every key holds our value on our lease, all written at one revision, and
everything to be removed is gone, then the transaction's effect is in place and that revision is its outcome.
Otherwise nobody can tell, and the caller is told so (``STORE_TIMEOUT``).

Left open on purpose: a create (``Absent``) whose first run was carried out, and whose key was removed by another before
the second run, is created again. Any caller that retries does the same; the lease bounds how long it can matter.
"""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.store.etcd import rpc_pb2 as pb
from controlplane.store.port import Compare, Delete, KeyValue, Operator, Outcome, Put, Target, Transaction

# etcd's default for --max-txn-ops; what reads back must not make a transaction larger than what was accepted before.
MAX_OPERATIONS = 128

_RESULT = {
    Operator.EQUAL: pb.Compare.EQUAL,
    Operator.NOT_EQUAL: pb.Compare.NOT_EQUAL,
    Operator.GREATER: pb.Compare.GREATER,
    Operator.LESS: pb.Compare.LESS,
}
_TARGET = {
    Target.CREATE_REVISION: pb.Compare.CREATE,
    Target.MOD_REVISION: pb.Compare.MOD,
    Target.LEASE: pb.Compare.LEASE,
    Target.VALUE: pb.Compare.VALUE,
}


def to_bytes(key: str) -> bytes:
    """A key as etcd keeps it."""
    return key.encode("utf-8", "surrogateescape")


def range_start(prefix: str) -> bytes:
    """The first key that starts with ``prefix``; etcd knows no empty key."""
    return to_bytes(prefix) or b"\0"


def range_end(prefix: str) -> bytes:
    """The first key behind everything that starts with ``prefix``."""
    start = to_bytes(prefix).rstrip(b"\xff")
    # A lone zero byte is etcd's word for "to the end of the key space".
    return start[:-1] + bytes([start[-1] + 1]) if start else b"\0"


def key_value(kv: pb.KeyValue) -> KeyValue:
    """A key as the port shows it."""
    return KeyValue(kv.key.decode("utf-8", "surrogateescape"), kv.value, kv.create_revision, kv.mod_revision, kv.lease)


def request(transaction: Transaction) -> pb.TxnRequest:
    """The transaction to send. What it reads comes first, so that it shows what was there before the writes."""
    reads = [_read(key) for key in transaction.read]
    return pb.TxnRequest(
        compare=[_compare(compare) for compare in transaction.compare],
        success=[*reads, *(_write(operation) for operation in transaction.then)],
        failure=reads,
    )


def may_repeat(transaction: Transaction) -> bool:
    """Whether the transaction may be sent again, as :func:`second_request`, after its answer was lost."""
    fits = len(transaction.then) + len(transaction.read) <= MAX_OPERATIONS
    return fits and any(_spent(compare, operation) for compare in transaction.compare for operation in transaction.then)


def second_request(transaction: Transaction) -> pb.TxnRequest:
    """What to send after an answer was lost: the same, reading back when it finds its guard spent."""
    again = request(transaction)
    again.failure.extend(_read_back(operation) for operation in transaction.then)
    return again


def nested(requests: Iterable[pb.TxnRequest]) -> pb.TxnRequest:
    """Several transactions in one request, each with its own guard."""
    return pb.TxnRequest(success=[pb.RequestOp(request_txn=one) for one in requests])


def nested_answers(answer: pb.TxnResponse) -> list[pb.TxnResponse]:
    """The answer to each transaction of a :func:`nested` request; etcd tells the revision only once."""
    answers = [response.response_txn for response in answer.responses]
    for one in answers:
        one.header.revision = answer.header.revision
    return answers


def outcome(transaction: Transaction, answer: pb.TxnResponse) -> Outcome:
    """The outcome that an answer tells."""
    return Outcome(answer.succeeded, answer.header.revision, _found(answer.responses[: len(transaction.read)]))


def outcome_of_first(transaction: Transaction, answer: pb.TxnResponse) -> Outcome | None:
    """The outcome of a lost first run, from a second one whose comparisons failed. None when nobody can tell."""
    written = {operation.key for operation in transaction.then}
    if not written.isdisjoint(transaction.read):
        return None
    revisions = set()
    for operation, response in zip(transaction.then, answer.responses[len(transaction.read) :], strict=True):
        kvs = response.response_range.kvs
        if isinstance(operation, Delete):
            if kvs:
                return None
        elif kvs and (kvs[0].value, kvs[0].lease) == (operation.value, operation.lease):
            revisions.add(kvs[0].mod_revision)
        else:
            return None
    if len(revisions) > 1:
        return None
    revision = revisions.pop() if revisions else answer.header.revision
    return Outcome(True, revision, _found(answer.responses[: len(transaction.read)]))


def _found(responses: list[pb.ResponseOp]) -> dict[str, KeyValue]:
    found = (key_value(kv) for response in responses for kv in response.response_range.kvs)
    return {item.key: item for item in found}


def _spent(compare: Compare, operation: Put | Delete) -> bool:
    if operation.key != compare.key or compare.operator not in {Operator.EQUAL, Operator.GREATER}:
        return False
    absent = compare.operand == 0 and compare.operator is Operator.EQUAL
    match compare.target:
        case Target.CREATE_REVISION:
            return absent if isinstance(operation, Put) else not absent
        case Target.MOD_REVISION:
            exact = compare.operator is Operator.EQUAL
            return exact if isinstance(operation, Put) else not absent
        case _:
            return False


def _compare(compare: Compare) -> pb.Compare:
    wire = pb.Compare(key=to_bytes(compare.key), target=_TARGET[compare.target], result=_RESULT[compare.operator])
    setattr(wire, compare.target.value, compare.operand)
    return wire


def _write(operation: Put | Delete) -> pb.RequestOp:
    if isinstance(operation, Put):
        put = pb.PutRequest(key=to_bytes(operation.key), value=operation.value, lease=operation.lease)
        return pb.RequestOp(request_put=put)
    if operation.prefix:
        below = pb.DeleteRangeRequest(key=range_start(operation.key), range_end=range_end(operation.key))
        return pb.RequestOp(request_delete_range=below)
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=to_bytes(operation.key)))


def _read(key: str) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=to_bytes(key)))


def _read_back(operation: Put | Delete) -> pb.RequestOp:
    if isinstance(operation, Delete) and operation.prefix:
        start, end = range_start(operation.key), range_end(operation.key)
        return pb.RequestOp(request_range=pb.RangeRequest(key=start, range_end=end, limit=1))
    return _read(operation.key)
