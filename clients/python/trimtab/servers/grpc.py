"""gRPC servers in a mesh: what their callers say is heard, and the policies of the service decide who is let in.

>>> server = grpc.server(pool, interceptors=[MeshInterceptor(mesh, "orders")])
>>> server = grpc.aio.server(interceptors=[AsyncMeshInterceptor(mesh, "orders")])

Calls made while serving inherit the deadline of the RPC and the priority in its metadata. A call that is not taken on ends with
RESOURCE_EXHAUSTED and ``grpc-retry-pushback-ms`` (gRFC A6), one whose time is over with DEADLINE_EXCEEDED. A call that waits
holds its thread of a ``grpc.server``: give it more threads than the policy has places, or the policy no queue.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import copy_context
from math import ceil, inf
from typing import Any, NamedTuple, NoReturn

import grpc
import grpc.aio

from trimtab.calling import context as outer
from trimtab.calling.context import MIRRORED_HEADER, PRIORITY_HEADER
from trimtab.core.orca import FORMAT_HEADER, LOAD_HEADER, LOAD_TRAILER
from trimtab.core.retrying.conditions import outcome_of
from trimtab.core.serving import NO_HEADERS, Arrival
from trimtab.errors import DeadlineExceeded, Rejected, TrimtabError
from trimtab.gate import Gate, Visit
from trimtab.servers.admission import Reception, priority_of, wait, wait_awaiting

HEALTH_SERVICES = ("grpc.health.v1.Health",)
PUSHBACK = "grpc-retry-pushback-ms"

# gRPC tells a call without a deadline by one that is centuries away. Seconds.
_NO_DEADLINE = 10 * 365 * 86_400.0

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

_MAKERS: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class _Method(NamedTuple):
    """The RPC that is called, and what serves it."""

    reception: Reception
    details: Any
    handler: Any
    load_reports: bool  # to callers that do not ask for them, too

    @property
    def behavior(self) -> Callable[..., Any]:
        """The application's function."""
        handler = self.handler
        if handler.request_streaming:
            return handler.stream_stream if handler.response_streaming else handler.stream_unary  # type: ignore[no-any-return]
        return handler.unary_stream if handler.response_streaming else handler.unary_unary  # type: ignore[no-any-return]

    def served_by(self, behavior: Callable[..., Any]) -> Any:
        """The same method with another function."""
        handler = self.handler
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        return make(behavior, handler.request_deserializer, handler.response_serializer)

    @property
    def mirrored(self) -> bool:
        """The call is a copy, whose answer nobody reads."""
        return any(name == MIRRORED_HEADER for name, _ in self.details.invocation_metadata or ())

    @property
    def asked(self) -> bool:
        """The caller wants to be told of the load."""
        return any(name == FORMAT_HEADER for name, _ in self.details.invocation_metadata or ())

    @property
    def metered(self) -> bool:
        """Somebody wants to be told of the load, now or before."""
        return self.load_reports or self.reception.meter.counting or self.asked

    def arrival(self, gate: Gate, context: Any, now: float) -> Arrival:
        """The call as the gate sees it."""
        metadata = self.details.invocation_metadata or ()
        priority = next((value for name, value in metadata if name == PRIORITY_HEADER), "")
        # Values of -bin keys are bytes, which no policy can name.
        headers = {n: v for n, v in metadata if isinstance(v, str)} if gate.needs_headers else NO_HEADERS
        left = context.time_remaining()
        deadline = inf if left is None or left > _NO_DEADLINE else now + left
        return Arrival(self.details.method.removeprefix("/"), "", headers, priority_of(priority), deadline)


class _Interceptor:
    """What interceptors of both kinds of servers have in common."""

    def __init__(
        self,
        mesh: Any,
        service: str,
        *,
        namespace: str | None = None,
        exempt: Collection[str] = HEALTH_SERVICES,
        load_reports: bool = False,
    ) -> None:
        self._reception = Reception(mesh, service, namespace)
        self._exempt = frozenset(exempt)
        self._load_reports = load_reports

    def _method(self, details: Any, handler: Any) -> _Method | None:
        """The method whose calls are to be let in; None: there is none, or it is exempt."""
        if handler is None or _service(details) in self._exempt:
            return None
        return _Method(self._reception, details, handler, self._load_reports)


class MeshInterceptor(_Interceptor, grpc.ServerInterceptor):  # type: ignore[type-arg]
    """For ``grpc.server``, all kinds of calls. A stream holds its place until it ends.

    ``service`` (with ``namespace``, by default the mesh's own) is what this process serves; ``exempt`` names gRPC services
    whose calls are let in whatever else is going on. An RPC whose caller asks for it ends with a
    report of the load; with ``load_reports`` every one does, in the form of gRFC A51.
    """

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Have the method's calls let in."""
        handler = continuation(handler_call_details)
        method = self._method(handler_call_details, handler)
        return handler if method is None else _blocking(method)


class AsyncMeshInterceptor(_Interceptor, grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """The same for ``grpc.aio.server``. Functions that block, which gRPC gives a thread, stay in the queue without their clients.

    Generators that block are left alone: gRPC tells nobody when their clients go away, and never ends them.
    """

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Have the method's calls let in."""
        handler = await continuation(handler_call_details)
        method = self._method(handler_call_details, handler)
        if method is None:
            return handler
        if inspect.iscoroutinefunction(method.behavior):
            return _awaited(method)
        if inspect.isasyncgenfunction(method.behavior):
            return _generated(method)
        return handler if handler.response_streaming else _blocking(method)


def _blocking(method: _Method) -> Any:
    behavior = method.behavior

    def serve(request: Any, context: Any) -> Any:
        with _let_in(method, context) as (deadline, priority), _inherited(deadline, priority, method.mirrored):
            return behavior(request, context)

    def serve_stream(request: Any, context: Any) -> Iterator[Any]:
        with _let_in(method, context) as (deadline, priority):
            # A generator has no context of its own, and may be closed from another one.
            own = copy_context()
            own.run(_inherit, deadline, priority, method.mirrored)
            answers = own.run(lambda: iter(behavior(request, context)))
            end = object()
            while (answer := own.run(next, answers, end)) is not end:
                yield answer

    return method.served_by(serve_stream if method.handler.response_streaming else serve)


def _awaited(method: _Method) -> Any:
    """A coroutine, also one that answers with a stream by ``context.write``."""
    behavior = method.behavior

    async def serve(request: Any, context: Any) -> Any:
        async with _let_in_awaiting(method, context):
            return await behavior(request, context)

    return method.served_by(serve)


def _generated(method: _Method) -> Any:
    """An asynchronous generator."""
    behavior = method.behavior

    async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
        async with _let_in_awaiting(method, context), aclosing(behavior(request, context)) as answers:
            async for answer in answers:
                yield answer

    return method.served_by(serve)


class _Stay:
    """One call from its arrival to its end, which its handler or gRPC tells: whoever comes first."""

    __slots__ = ("_ends", "_streaming", "good", "visit")

    def __init__(self, method: _Method) -> None:
        method.reception.serving.enter()
        self._ends = [method.reception.serving.exit]
        self._streaming = method.handler.response_streaming
        self.visit: Visit | None = None
        self.good = False

    def terminated(self, *_: object) -> None:
        """The RPC is over for gRPC. A handler that streams may never hear of that; another one is still at work."""
        visit = self.visit
        if visit is not None and visit.until is not None:
            visit.leave(visit.clock.now())
            visit.wake()
        elif self._streaming:
            self.end()

    def end(self) -> None:
        """The call is over. Saying it twice is saying it once."""
        if self.visit is not None:
            self.visit.leave(self.visit.clock.now(), self.good)
        with suppress(IndexError):
            self._ends.pop()()


@contextmanager
def _let_in(method: _Method, context: Any) -> Iterator[tuple[float | None, str]]:
    """Serve a call inside, with the deadline and the priority that it has. Ends the RPC when it is refused."""
    reception = method.reception
    stay = _Stay(method)
    try:
        gate = reception.gate or reception.open()
        call = Arrival() if gate is None else method.arrival(gate, context, now := gate.clock.now())
        try:
            visit = stay.visit = None if gate is None else gate.arrive(call, now)
            if visit is not None and (visit.until is not None or method.handler.response_streaming):
                context.add_callback(stay.terminated)
                if visit.until is not None and not wait(visit):
                    _abort(context, grpc.StatusCode.CANCELLED, "the client went away")
        except TrimtabError as error:
            context.set_trailing_metadata(_pushback(error))
            _abort(context, _code(error), str(error))
        with _metered(method, context) if method.metered else nullcontext():
            yield (None if call.deadline == inf else call.deadline), call.priority
        stay.good = True
    finally:
        stay.end()


@asynccontextmanager
async def _let_in_awaiting(method: _Method, context: Any) -> AsyncIterator[None]:
    """The same for asyncio, where gRPC cancels the task of a client that went away."""
    reception = method.reception
    stay = _Stay(method)
    try:
        gate = reception.gate or await asyncio.to_thread(reception.open)
        if gate is not None:
            call = method.arrival(gate, context, now := gate.clock.now())
            try:
                visit = stay.visit = gate.arrive(call, now)
                if visit is not None and visit.until is not None:
                    await wait_awaiting(visit)
            except TrimtabError as error:
                context.set_trailing_metadata(_pushback(error))
                await context.abort(_code(error), str(error))
            if method.handler.response_streaming:
                context.add_done_callback(stay.terminated)
            # The task is the call's own, so there is nothing to be restored.
            _inherit(None if call.deadline == inf else call.deadline, call.priority, method.mirrored)
        with _metered(method, context) if method.metered else nullcontext():
            yield
        stay.good = True
    finally:
        stay.end()


@contextmanager
def _metered(method: _Method, context: Any) -> Iterator[None]:
    """Count the call that is served inside, and have it end with a report of the load for whoever wants one."""
    meter, failed = method.reception.meter, False
    # Functions that block in an asyncio server are given a context that tells nothing of this: exceptions have to do.
    ended: Callable[[], Any] = getattr(context, "code", lambda: None)
    reports: dict[str, str | bytes] = {}
    if method.asked:
        reports[LOAD_HEADER] = meter.report().text
    if method.load_reports:
        reports[LOAD_TRAILER] = meter.report().message
    try:
        if reports:
            # Now, for an asyncio server sends what there is when a call is aborted …
            context.set_trailing_metadata(tuple(reports.items()))
        yield
        failed = _failed(ended())
        if reports and hasattr(context, "trailing_metadata"):
            # … and again, for the application may have put its own in the place of it.
            others = (entry for entry in context.trailing_metadata() or () if entry[0] not in reports)
            context.set_trailing_metadata((*others, *reports.items()))
    except Exception:
        failed = _failed(ended() or grpc.StatusCode.UNKNOWN)
        raise
    finally:
        meter.served(failed)


def _failed(code: Any) -> bool:
    """Whether a call that ended so did by the fault of whoever served it. Older releases of gRPC tell codes by number, too."""
    name = _NAMES.get(code, "OK") if isinstance(code, int) else code.name if code is not None else "OK"
    return name != "OK" and outcome_of(name).failed


def _abort(context: Any, code: grpc.StatusCode, details: str) -> NoReturn:
    context.abort(code, details)
    # What an asyncio server gives its handlers that block comes back from that.
    raise grpc.aio.AbortError(details)


@contextmanager
def _inherited(deadline: float | None, priority: str, mirrored: bool) -> Iterator[None]:
    """Have calls that are made inside end by ``deadline`` (by the gate's clock) and be as important as ``priority`` says."""
    until, marks = outer.deadline.set(deadline), outer.marks.set(outer.marked(priority, mirrored))
    try:
        yield
    finally:
        outer.deadline.reset(until)
        outer.marks.reset(marks)


def _inherit(deadline: float | None, priority: str, mirrored: bool) -> None:
    outer.deadline.set(deadline)
    outer.marks.set(outer.marked(priority, mirrored))


def _service(details: Any) -> str:
    return details.method.removeprefix("/").partition("/")[0]  # type: ignore[no-any-return]


def _code(error: TrimtabError) -> grpc.StatusCode:
    late = isinstance(error, DeadlineExceeded)
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.RESOURCE_EXHAUSTED


def _pushback(error: TrimtabError) -> tuple[tuple[str, str], ...]:
    return ((PUSHBACK, str(ceil(error.retry_after * 1000))),) if isinstance(error, Rejected) else ()
