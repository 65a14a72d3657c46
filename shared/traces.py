"""Our spans, and where they go: OpenTelemetry's SDK, which nothing else imports.

The provider is our own and not the process': what libraries would tell of requests and answers goes nowhere.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from shared.telemetry import Parent

CLOSE_S: Final = 2.0
"""How long an ending process waits for a collector to take what is left."""

Attributes = Mapping[str, str | int | float | Sequence[str]]

SERVER, CLIENT, CONSUMER, INTERNAL = SpanKind.SERVER, SpanKind.CLIENT, SpanKind.CONSUMER, SpanKind.INTERNAL


def _context(parent: Parent) -> SpanContext:
    return SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=TraceFlags(parent.flags))


def link(parent: Parent) -> Link:
    return Link(_context(parent))


def fail(span: Span, code: str) -> None:
    """Note that what the span is about has failed, by our code alone."""
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR))


class _Ids(RandomIdGenerator):
    """Random ids, but for a span whose ids are given."""

    trace_id: int | None = None
    span_id: int | None = None

    def generate_trace_id(self) -> int:
        return self.trace_id or super().generate_trace_id()

    def generate_span_id(self) -> int:
        return self.span_id or super().generate_span_id()


class Traces:
    """Starts spans. Ended ones are exported by a thread of their own; what a collector does not take is dropped."""

    def __init__(self, service: str, *, to_console: bool = False) -> None:
        self._ids = _Ids()
        resource = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
        with suppress(metadata.PackageNotFoundError):
            resource["service.version"] = metadata.version("rejoin")
        self._provider = TracerProvider(
            resource=Resource.create(resource),
            # It would wait for a collector that hangs.
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(to_console=to_console)))
        self._tracer = self._provider.get_tracer("rejoin")

    def span(
        self,
        name: str,
        kind: SpanKind,
        parent: Parent | Span | None,
        attributes: Attributes | None = None,
        *,
        links: Sequence[Link] = (),
        start_ns: int | None = None,
        trace_id: int | None = None,
        span_id: int | None = None,
    ) -> Span:
        """Start a span; without a parent it is the first of its trace. To be ended."""
        context = Context()
        if isinstance(parent, Parent):
            context = set_span_in_context(NonRecordingSpan(_context(parent)), context)
        elif parent is not None:
            context = set_span_in_context(parent, context)
        self._ids.trace_id, self._ids.span_id = trace_id, span_id
        try:
            return self._tracer.start_span(name, context, kind, attributes, links, start_ns)
        finally:
            self._ids.trace_id = self._ids.span_id = None

    async def close(self) -> None:
        """Export what is left, not for ever."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        # A daemon: an executor's thread would be waited for.
        threading.Thread(target=shut_down, name="last spans", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await done.wait()


def _exporter(*, to_console: bool) -> SpanExporter:
    if to_console:
        return ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: span.to_json(indent=None) + "\n")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


__all__ = ["CLIENT", "CONSUMER", "INTERNAL", "SERVER", "Span", "Traces", "fail", "link"]
