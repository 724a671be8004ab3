"""``@mesh.guard``: any function as a call to a service, whatever protocol it speaks.

>>> @mesh.guard("orders", method="Charge", fallback=cached)
... def charge(order, *, endpoint):
...     return post(endpoint.target, order)

A function that has a parameter ``endpoint`` is given the one that was picked. A guarded function has a second way to call
it, ``charge.traced(order)``, which returns the value together with the trace of the call.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, Protocol

from trimtab.calling.context import deadline as inherited
from trimtab.calling.drive import Awaiting, Blocking, block, call_of, run
from trimtab.calling.heed import without
from trimtab.core.calling.call import Call
from trimtab.core.calling.fallbacks import reason
from trimtab.core.calling.observed import Dispatch
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.orca import LoadReport
from trimtab.core.retrying.conditions import CANCELLED, OK, Outcome, outcome_of
from trimtab.errors import DeadlineExceeded, FaultInjected

_REFUSED = Outcome("connect-failure", sent=False)
_TIMEOUT = Outcome("timeout")
_RESET = Outcome("reset")
_EXCEPTION = Outcome("exception")
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Service(Protocol):
    """What a guarded function is a call to: a service as this process knows it."""

    def pipeline(self, method: str) -> Pipeline:
        """What a call goes through."""
        ...


class Traced(NamedTuple):
    """What a guarded function returned, and what happened to get it."""

    value: Any
    call: Call


def blame(error: BaseException, ignore: tuple[type[BaseException], ...]) -> Outcome:
    """What an exception means. Cancellation, interruption and what is to be ignored say nothing of the callee."""
    if isinstance(error, ignore) or not isinstance(error, Exception):
        return CANCELLED
    if isinstance(error, (TimeoutError, DeadlineExceeded)):
        return _TIMEOUT
    if isinstance(error, FaultInjected):
        return outcome_of(error.condition)
    if isinstance(error, ConnectionRefusedError):
        return _REFUSED
    return _RESET if isinstance(error, ConnectionError) else _EXCEPTION


class Guarded:
    """A function, and how calls of it are made and understood.

    ``ready`` returns the service when this process knows it, ``discover`` after waiting for what there is to know of it;
    ``elsewhere`` does so for another one of its namespace, None: nobody else is asked.
    ``idempotent``: calling it twice does no harm. ``ignore``: exceptions that say nothing of the callee. ``fallback``: called
    with the same arguments when the call failed for good and the policy has nothing to offer instead. Raises TypeError for a
    generator function, of which a call does nothing yet.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        ready: Callable[[], Service | None],
        discover: Callable[[], Service],
        elsewhere: Callable[[str], Service] | None = None,
        method: str = "",
        fallback: Callable[..., Any] | None = None,
        idempotent: bool = False,
        ignore: tuple[type[BaseException], ...] = (),
    ) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__} cannot be guarded: it is a generator function, so a call of it only begins when its "
                "values are asked for. Guard what it calls, or loop over mesh.attempts() in it"
            )
        self.function = function
        self.ready = ready
        self.discover = discover
        self.elsewhere = elsewhere
        self.method = method
        self._fallback = fallback
        self.idempotent = idempotent
        self.ignore = ignore
        parameters = inspect.signature(function).parameters
        self.takes_endpoint = "endpoint" in parameters
        self._positional = [name for name, one in parameters.items() if one.kind in _BY_POSITION]
        self._work: type[_AwaitedWork | _BlockingWork] = (
            _AwaitedWork if inspect.iscoroutinefunction(function) else _BlockingWork
        )

    def wrapped(self) -> Callable[..., Any]:
        """The function to call instead."""
        return _guard_awaited(self) if inspect.iscoroutinefunction(self.function) else _guard_blocking(self)

    def begin(self, pipeline: Pipeline, now: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Let a call in. Raises what refuses it."""
        # What is wrong with its arguments, the call itself will say.
        arguments = {**dict(zip(self._positional, args, strict=False)), **kwargs} if pipeline.keyed else None
        return pipeline.begin(
            now,
            method=self.method,
            deadline=inherited.get(),
            idempotent=self.idempotent,
            local=not self.takes_endpoint,
            arguments=arguments,
        )

    async def through(
        self,
        pipeline: Pipeline,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        call: Call | None = None,
        failure: BaseException | None = None,
        *,
        is_fallback: bool = False,
    ) -> Traced:
        """The whole way of a call, from its beginning or from the ``failure`` of its first attempt."""
        if pipeline.mirroring is not None:
            without(pipeline, "guarded functions", ("mirror",))
        work = self._work(self, args, kwargs)
        try:
            if call is None:
                if failure is not None:
                    raise failure
                call = self.begin(pipeline, pipeline.now(), args, kwargs)
            value = await run(pipeline, call, work, failure)
        except Exception as error:
            found = None if is_fallback else await self._instead(pipeline, error, args, kwargs, work)
            if found is None:
                raise
            return found
        pipeline.over(call, pipeline.now())
        if pipeline.fallbacks is not None and pipeline.fallbacks.keeps:
            pipeline.fallbacks.keep(self._identity(args, kwargs), value, 0, pipeline.now())
        return Traced(value, call)

    async def _instead(
        self,
        pipeline: Pipeline,
        error: Exception,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        work: _BlockingWork | _AwaitedWork,
    ) -> Traced | None:
        if isinstance(error, self.ignore):
            return None
        call = call_of(error, pipeline)
        fallbacks = pipeline.fallbacks
        if fallbacks is not None:
            identity, now = self._identity(args, kwargs), pipeline.now()
            # A function that is given no endpoint cannot be sent elsewhere.
            elsewhere = self.elsewhere if self.takes_endpoint else None
            substitute = fallbacks.instead(reason(error), identity, now, elsewhere=elsewhere is not None)
            if substitute is not None and elsewhere is not None and substitute.source == "service":
                service: str = substitute.value
                try:
                    other = (await work.find(elsewhere, service)).pipeline(self.method)
                    traced = await self.through(other, args, kwargs, is_fallback=True)
                except Exception as last:
                    if self._fallback is None:
                        raise last from error
                else:
                    pipeline.substituted(traced.call, service)
                    return traced
            elif substitute is not None:
                pipeline.substituted(call, substitute.source, substitute.age)
                return Traced(substitute.value, call)
        if self._fallback is None:
            return None
        value = self._fallback(*args, **kwargs)
        if inspect.isawaitable(value):
            value = await value
        pipeline.substituted(call, "function")
        return Traced(value, call)

    def _identity(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        # What cannot be a key is told by its text: equal texts stand for equal arguments, or nothing is found.
        try:
            key = (self.function, args, tuple(sorted(kwargs.items())))
            hash(key)
        except TypeError:
            return (self.function, repr(args), repr(sorted(kwargs.items())))
        return key


class _Work:
    """One call of a guarded function, as a transport."""

    def __init__(self, guarded: Guarded, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._guarded = guarded
        self._args = args
        self._kwargs = kwargs

    def blame(self, error: BaseException) -> Outcome:
        """As the guard sees it."""
        return blame(error, self._guarded.ignore)

    def judge(self, answer: Any) -> Outcome:
        """Whatever is returned is a good answer."""
        return OK

    async def discard(self, answer: Any, call: Call) -> None:
        """A value needs no closing."""

    def dispatch(self, call: Call) -> Dispatch:
        """The function runs inside of the attempt."""
        return Dispatch(scoped=True)

    def status(self, answer: Any) -> str:
        """Values say nothing that would be understood here."""
        return ""

    def load(self, answer: Any) -> LoadReport | None:
        """Nor of the callee's load."""
        return None

    def _invoke(self, call: Call) -> Any:
        if call.abort is not None:
            raise FaultInjected(call.abort.condition)
        if self._guarded.takes_endpoint:
            return self._guarded.function(*self._args, endpoint=call.endpoint, **self._kwargs)
        return self._guarded.function(*self._args, **self._kwargs)


class _BlockingWork(Blocking, _Work):
    async def send(self, call: Call) -> Any:
        """Nothing can end a blocking function early: the deadline holds between attempts, and for what it calls in turn."""
        token = inherited.set(call.until)
        try:
            return self._invoke(call)
        finally:
            inherited.reset(token)

    async def find(self, elsewhere: Callable[[str], Service], service: str) -> Service:
        """Another service, waiting here for what there is to know of it."""
        return elsewhere(service)


class _AwaitedWork(Awaiting, _Work):
    async def send(self, call: Call) -> Any:
        """Await the function, at most for as long as the attempt may take."""
        until = call.until
        token = inherited.set(until)
        try:
            if until is None:
                return await self._invoke(call)
            with call.pipeline.clock.deadline(until):
                return await self._invoke(call)
        finally:
            inherited.reset(token)

    async def find(self, elsewhere: Callable[[str], Service], service: str) -> Service:
        """Another service, while others run."""
        return await asyncio.to_thread(elsewhere, service)


def _guard_blocking(guarded: Guarded) -> Callable[..., Any]:
    """A guarded ``def``."""
    function, takes_endpoint, local = guarded.function, guarded.takes_endpoint, not guarded.takes_endpoint
    method, idempotent, deadline = guarded.method, guarded.idempotent, inherited.get
    inherit, disinherit = inherited.set, inherited.reset
    held: Pipeline | None = None

    def find() -> Pipeline:
        return (guarded.ready() or guarded.discover()).pipeline(method)

    def traced(*args: Any, **kwargs: Any) -> Traced:
        return block(guarded.through(find(), args, kwargs))

    @functools.wraps(function)
    def call_guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal held
        pipeline = held
        if pipeline is None or pipeline.retired:
            pipeline = find()
            if not pipeline.plain:
                return block(guarded.through(pipeline, args, kwargs)).value
            held = pipeline
        # The short way: what is rarely needed costs a call nothing.
        call, now = None, pipeline.now
        try:
            call = pipeline.begin(now(), method, deadline(), idempotent, local)
            token = inherit(call.until)
            try:
                value = (
                    function(*args, endpoint=call.endpoint, **kwargs) if takes_endpoint else function(*args, **kwargs)
                )
            finally:
                disinherit(token)
        except BaseException as error:
            failure = error
        else:
            pipeline.answered(call, now(), True)
            return value
        return block(guarded.through(pipeline, args, kwargs, call, failure)).value

    call_guarded.traced = traced  # type: ignore[attr-defined]
    return call_guarded


def _guard_awaited(guarded: Guarded) -> Callable[..., Any]:
    """A guarded ``async def``."""
    function, takes_endpoint, local = guarded.function, guarded.takes_endpoint, not guarded.takes_endpoint
    method, idempotent, deadline = guarded.method, guarded.idempotent, inherited.get
    inherit, disinherit = inherited.set, inherited.reset
    held: Pipeline | None = None

    async def find() -> Pipeline:
        service = guarded.ready()
        if service is None:
            service = await asyncio.to_thread(guarded.discover)
        return service.pipeline(method)

    async def traced(*args: Any, **kwargs: Any) -> Traced:
        return await guarded.through(await find(), args, kwargs)

    @functools.wraps(function)
    async def call_guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal held
        pipeline = held
        if pipeline is None or pipeline.retired:
            pipeline = await find()
            if not pipeline.plain:
                return (await guarded.through(pipeline, args, kwargs)).value
            held = pipeline
        call, now = None, pipeline.now
        try:
            call = pipeline.begin(now(), method, deadline(), idempotent, local)
            work = function(*args, endpoint=call.endpoint, **kwargs) if takes_endpoint else function(*args, **kwargs)
            until = call.until
            token = inherit(until)
            try:
                if until is None:
                    value = await work
                else:
                    with pipeline.clock.deadline(until):
                        value = await work
            finally:
                disinherit(token)
        except BaseException as error:
            failure = error
        else:
            pipeline.answered(call, now(), True)
            return value
        return (await guarded.through(pipeline, args, kwargs, call, failure)).value

    call_guarded.traced = traced  # type: ignore[attr-defined]
    return call_guarded
