"""Traces of calls, for OpenTelemetry: a span for each call, and below it one of kind CLIENT for each attempt.

>>> mesh = Mesh(hooks=[Tracing()])

The context is passed on with every attempt, through the propagator that is configured (W3C ``traceparent`` and ``baggage`` by
default), so what the callee does hangs below the attempt that reached it. What a guarded function or the block of
``mesh.attempts`` does inside of an attempt hangs below it, too.

Sources: OpenTelemetry's semantic conventions for HTTP spans (stable) and for RPC and gRPC spans (1.45, stable).
"""

from __future__ import annotations

try:
    from opentelemetry import context, propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, SpanKind, StatusCode
except ModuleNotFoundError as error:
    raise ImportError(
        "trimtab.opentelemetry needs opentelemetry-api, which is not installed: pip install 'trimtab[opentelemetry]'"
    ) from error

from trimtab.core.calling.pipeline import refusing_section
from trimtab.hooks import Call, Dispatch, Hooks, Outcome

_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_SCHEMA = "https://opentelemetry.io/schemas/1.45.0"
Attributes = dict[str, str | int | float | bool]


class _Trace:
    """The spans of a call. ``within``: the context of the call's own. ``errors``: of the newest attempt at each endpoint, by its
    id, empty for a good one: copies end in any order, and the call comes to what one of them did.
    """

    __slots__ = ("errors", "span", "within")

    def __init__(self, span: Span, within: Context) -> None:
        self.span = span
        self.within = within
        self.errors: dict[str, str] = {}


class Tracing(Hooks):
    """Spans for all calls of a mesh. Without arguments, through the provider and the propagator that are set globally.

    The query of a URL is left out, as it may hold what should not be told.
    """

    def __init__(
        self, *, tracer_provider: trace.TracerProvider | None = None, propagator: TextMapPropagator | None = None
    ) -> None:
        self._tracer = trace.get_tracer("trimtab", tracer_provider=tracer_provider, schema_url=_SCHEMA)
        self._inject = propagator.inject if propagator is not None else propagate.inject

    def call_started(self, call: Call) -> None:
        """Begin the span of the call, below what is current."""
        assert call.notes is not None
        parent = context.get_current()
        name = f"{call.method} {call.service}" if call.method else call.service
        attributes: Attributes = {"trimtab.service": call.service, "trimtab.policy.revision": call.policy}
        span = self._tracer.start_span(name, parent, SpanKind.INTERNAL, attributes)
        call.notes[self] = _Trace(span, trace.set_span_in_context(span, parent))

    def attempt_started(self, call: Call, dispatch: Dispatch) -> None:
        """Begin the span of the attempt, and send its context along."""
        told = self._trace(call)
        if told is None:
            return
        name, attributes = _described(call, dispatch)
        span = self._tracer.start_span(name, told.within, SpanKind.CLIENT, attributes)
        within = trace.set_span_in_context(span, told.within)
        self._inject(dispatch.headers, context=within)
        # Kept with the attempt: copies of a call are under way at the same time.
        dispatch.notes[self] = span, context.attach(within) if dispatch.scoped else None

    def attempt_ended(self, call: Call, dispatch: Dispatch, outcome: Outcome) -> None:
        """End the span of the attempt."""
        told = self._trace(call)
        if told is None or self not in dispatch.notes:
            return
        span, token = dispatch.notes.pop(self)
        if token is not None:
            context.detach(token)
        status = dispatch.status
        if dispatch.protocol == "grpc" and (status := status or ("OK" if not outcome.failed else "")):
            span.set_attribute("rpc.response.status_code", status)
        elif dispatch.protocol == "http" and status:
            span.set_attribute("http.response.status_code", int(status))
        error = told.errors[_where(call)] = _error(dispatch, status, outcome)
        _end(span, error, call.error)

    def call_ended(self, call: Call, error: Exception | None) -> None:
        """End the span of the call."""
        told = self._trace(call)
        if told is None:
            return
        span = told.span
        span.set_attribute("trimtab.attempts", len(call.attempts))
        if error is None:
            if (outcome := call.outcome) is not None and not outcome.counted:
                # Given up, perhaps between two attempts: it did not fail with the last one.
                _end(span, outcome.condition, "")
            else:
                _end(span, told.errors.get(_where(call), ""), call.error)
            return
        span.set_attribute("trimtab.refused", refusing_section(call, error))
        _end(span, str(getattr(error, "code", type(error).__qualname__)), str(error))

    def fallback_served(self, call: Call) -> None:
        """A span without length below that of the call, which is over: a call that failed is told as one."""
        told = self._trace(call)
        attributes: Attributes = {"trimtab.service": call.service, "trimtab.fallback": call.fallback}
        if call.age:
            attributes["trimtab.fallback.age"] = call.age
        within = told.within if told is not None else None
        self._tracer.start_span(f"fallback {call.service}", within, SpanKind.INTERNAL, attributes).end()

    def _trace(self, call: Call) -> _Trace | None:
        return call.notes.get(self) if call.notes is not None else None


def _where(call: Call) -> str:
    return call.endpoint.id if call.endpoint is not None else ""


def _described(call: Call, dispatch: Dispatch) -> tuple[str, Attributes]:
    """The name of an attempt's span, and what is known before it is sent."""
    attributes: Attributes = {"trimtab.service": call.service, "trimtab.policy.revision": call.policy}
    endpoint, name, again = call.endpoint, call.method or call.service, len(call.tried)
    if endpoint is not None:
        attributes |= {
            "server.address": endpoint.address,
            "server.port": endpoint.port,
            "trimtab.endpoint": endpoint.id,
        }
    if dispatch.protocol == "http":
        known = call.method in _METHODS
        name = call.method if known else "HTTP"
        attributes["http.request.method"] = call.method if known else "_OTHER"
        if not known:
            attributes["http.request.method_original"] = call.method
        if endpoint is not None:
            attributes["url.full"] = f"{dispatch.scheme}://{endpoint.target}{dispatch.path}"
        if again:
            attributes["http.request.resend_count"] = again
    elif dispatch.protocol == "grpc":
        attributes |= {"rpc.system.name": "grpc", "rpc.method": call.method}
    return name, attributes


def _error(dispatch: Dispatch, status: str, outcome: Outcome) -> str:
    """The ``error.type`` of an attempt; empty: it has none. Any HTTP status from 400 and any gRPC code but OK is one."""
    if status and (int(status) >= 400 if dispatch.protocol == "http" else status != "OK"):
        return status
    return outcome.condition if outcome.failed or not outcome.counted else ""


def _end(span: Span, error: str, told: str) -> None:
    if error:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR, told or error)
    span.end()
