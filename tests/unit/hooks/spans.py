"""Traces as the OpenTelemetry SDK exports them, kept in memory."""

from __future__ import annotations

import time

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from trimtab.opentelemetry import Tracing


class Spans:
    """A provider of its own, a Tracing that uses it, and what was exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(tracer_provider=self.provider)

    @property
    def ended(self) -> list[ReadableSpan]:
        """All spans that have ended, in the order of their ends."""
        return list(self._exporter.get_finished_spans())

    def wait(self, count: int) -> list[ReadableSpan]:
        """All that have ended, once they are so many: some end on threads of gRPC."""
        until = time.monotonic() + 10
        while len(self.ended) < count and time.monotonic() < until:
            time.sleep(0.005)
        return self.ended

    @property
    def attempts(self) -> list[ReadableSpan]:
        """The spans of attempts."""
        return [span for span in self.ended if span.kind is SpanKind.CLIENT]

    @property
    def call(self) -> ReadableSpan:
        """The span of the only call."""
        (call,) = [span for span in self.ended if span.kind is SpanKind.INTERNAL and span.parent is None]
        return call

    def clear(self) -> None:
        """Forget all."""
        self._exporter.clear()


def traceparent(span: ReadableSpan) -> str:
    """The W3C header that names a span as the parent."""
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


def said(span: ReadableSpan) -> dict[str, object]:
    """The attributes of a span."""
    return dict(span.attributes or {})


def is_below(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether a span is a child of another."""
    assert span.parent is not None and parent.context is not None
    return (span.parent.trace_id, span.parent.span_id) == (parent.context.trace_id, parent.context.span_id)
