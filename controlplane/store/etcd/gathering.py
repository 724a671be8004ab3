"""Transactions that arrive while others are on their way wait for each other and go to etcd in one request.

A request costs etcd and us far more than what is in it. A lone transaction is sent at once and as it is. While
:data:`IN_FLIGHT` are under way, later transactions wait until one of them is answered, and then go together, as far as
``grouping.py`` lets them: the busier the store, the larger the groups. Nobody waits longer than
:data:`PATIENCE`, so that a member that is stuck holds up only what was sent to it.

Each transaction of a group has its own outcome. When etcd refuses a group, for one member's lost lease perhaps, it has
written nothing, and each of them is run alone. When an answer was lost, each is judged by the rules of
``transaction.py``; when after that the group is refused, nobody can tell what the lost one did, and all are told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from controlplane.errors import Code, TrimtabError
from controlplane.store.etcd import rpc_pb2 as pb
from controlplane.store.etcd import transaction as txn
from controlplane.store.etcd.cluster import Answer, Cluster
from controlplane.store.etcd.endpoint import TXN
from controlplane.store.etcd.grouping import LOOK_AHEAD, Shape, choose, may_join, shape
from controlplane.store.port import Outcome, Transaction

# With two, groups are half as large, and nobody is answered sooner (decision 6).
IN_FLIGHT = 1
PATIENCE = 0.1
_LOST = "an answer was lost; the write may or may not have happened"


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    transaction: Transaction
    shape: Shape
    since: float
    outcome: asyncio.Future[Outcome]


class Gathering:
    """Sends the transactions of one store."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._in_flight = 0
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[list[Outcome | BaseException]]] = set()
        self._alarm: asyncio.TimerHandle | None = None

    async def commit(self, transaction: Transaction) -> Outcome:
        """Run a transaction, alone or in company. Raises what the store's port says.

        A caller that is cancelled while it waits for company sends nothing; later, the write may happen.
        """
        if not (self._cluster.options.gather and may_join(transaction)):
            return await self._alone(transaction)
        if self._in_flight < IN_FLIGHT and not self._waiting:
            self._in_flight += 1
            try:
                return await self._alone(transaction)
            finally:
                self._in_flight -= 1
                self._send_next()
        loop = asyncio.get_running_loop()
        waiting = _Waiting(transaction, shape(transaction), loop.time(), loop.create_future())
        self._waiting.append(waiting)
        self._set_alarm()
        return await waiting.outcome

    async def close(self) -> None:
        """Send what waits and wait for every answer. To be called when the cluster is closed: all end at once."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._send_overdue(patience=0)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _send_next(self) -> None:
        while self._in_flight < IN_FLIGHT and (group := self._next_group()):
            self._send(group)

    def _send_overdue(self, patience: float = PATIENCE) -> None:
        self._alarm = None
        overdue = asyncio.get_running_loop().time() - patience
        while self._waiting and self._waiting[0].since <= overdue and (group := self._next_group()):
            self._send(group)
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._waiting and self._alarm is None:
            due = self._waiting[0].since + PATIENCE
            self._alarm = asyncio.get_running_loop().call_at(due, self._send_overdue)

    def _next_group(self) -> list[_Waiting]:
        """Takes those that go next out of the queue; none when none waits."""
        while self._waiting:
            near = [waiting for waiting in self._waiting[:LOOK_AHEAD] if not waiting.outcome.done()]
            places = set(choose(waiting.shape for waiting in near))
            self._waiting[:LOOK_AHEAD] = [waiting for place, waiting in enumerate(near) if place not in places]
            if places:
                return [near[place] for place in sorted(places)]
        return []

    def _send(self, group: list[_Waiting]) -> None:
        self._in_flight += 1
        transactions = [waiting.transaction for waiting in group]
        task = asyncio.create_task(self._together(transactions), name=f"etcd commit of {len(group)}")
        self._tasks.add(task)
        task.add_done_callback(partial(self._sent, group))

    def _sent(self, group: list[_Waiting], task: asyncio.Task[list[Outcome | BaseException]]) -> None:
        self._tasks.discard(task)
        self._in_flight -= 1
        for place, waiting in enumerate(group):
            if waiting.outcome.done():
                continue
            if task.cancelled():
                waiting.outcome.cancel()
                continue
            failure = task.exception()
            outcome = failure if failure is not None else task.result()[place]
            if isinstance(outcome, BaseException):
                waiting.outcome.set_exception(outcome)
            else:
                waiting.outcome.set_result(outcome)
        self._send_next()

    async def _together(self, group: Sequence[Transaction]) -> list[Outcome | BaseException]:
        """Each one's outcome or failure."""
        if len(group) == 1:
            return await self._each_alone(group)
        lost = False

        def again() -> pb.TxnRequest:
            nonlocal lost
            lost = True
            return txn.nested(map(txn.second_request, group))

        request = txn.nested(map(txn.request, group))
        repeatable = all(map(txn.may_repeat, group))
        try:
            answer = await self._cluster.call(TXN, request, writes=True, again=again if repeatable else None)
        except TrimtabError as error:
            if error.code not in {Code.SESSION_LOST, Code.STORE_REFUSED}:
                return [TrimtabError(error.code, error.message, hint=error.hint) for _ in group]
            if lost:
                return [_unknown(error.message) for _ in group]
            return await self._each_alone(group)
        answers = txn.nested_answers(answer.message)
        return [
            _outcome(transaction, Answer(message, answer.endpoint, answer.lost))
            for transaction, message in zip(group, answers, strict=True)
        ]

    async def _each_alone(self, group: Sequence[Transaction]) -> list[Outcome | BaseException]:
        return await asyncio.gather(*map(self._alone, group), return_exceptions=True)

    async def _alone(self, transaction: Transaction) -> Outcome:
        again = partial(txn.second_request, transaction) if txn.may_repeat(transaction) else None
        writes = bool(transaction.then)
        answer = await self._cluster.call(TXN, txn.request(transaction), writes=writes, again=again)
        outcome = _outcome(transaction, answer)
        if isinstance(outcome, TrimtabError):
            raise outcome
        return outcome


def _outcome(transaction: Transaction, answer: Answer[pb.TxnResponse]) -> Outcome | TrimtabError:
    """What became of a transaction; ``transaction.py`` says what a lost answer means."""
    if not answer.lost or answer.message.succeeded:
        return txn.outcome(transaction, answer.message)
    first = txn.outcome_of_first(transaction, answer.message)
    return first if first is not None else _unknown(f"etcd {answer.endpoint}")


def _unknown(place: str) -> TrimtabError:
    return TrimtabError(Code.STORE_TIMEOUT, f"{place}: {_LOST}", hint="read again before writing again")
