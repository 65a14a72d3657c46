"""Whether this process traces, what a job carries of its trace, and the span of the request at hand.

Nothing of OpenTelemetry is imported here: without traces all of this is a look at a variable that is None.
"""

import hashlib
import os
import re
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from dotenv import dotenv_values

from shared.settings import ENV_FILE

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from shared.traces import Traces

OTEL_PREFIX: Final = "OTEL_"
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN: Final = "http/protobuf"

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Parent(NamedTuple):
    """A span of another process, or of an attempt that is gone, as the W3C's `traceparent` tells of it."""

    trace_id: int
    span_id: int
    flags: int


def parse(text: str) -> Parent | None:
    """Read a `traceparent` (https://www.w3.org/TR/trace-context/#traceparent-header); None for what is none."""
    parts = _TRACEPARENT.fullmatch(text)
    if parts is None or parts[1] == "ff" or (parts[1] == "00" and parts[5] is not None):
        return None
    parent = Parent(int(parts[2], 16), int(parts[3], 16), int(parts[4], 16))
    return parent if parent.trace_id and parent.span_id else None


def trace_of(job_id: str) -> int:
    """Return the trace of a job that came without one: the same at every worker."""
    return int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:16]) or 1


def span_of(job_id: str, attempt: int) -> int:
    """Return what the span of an attempt is called, so that the next one finds it though its worker was killed."""
    return int.from_bytes(hashlib.sha256(f"{job_id}:{attempt}".encode()).digest()[:8]) or 1


_current: ContextVar["Span | None"] = ContextVar("span", default=None)


def enter(span: "Span") -> None:
    """Make this the span of the task's request."""
    _current.set(span)


def tell(name: str, value: str | int | bool) -> None:
    """Have the request's span say this, if there is one."""
    if (span := _current.get()) is not None:
        span.set_attribute(name, value)


def current() -> "Span | None":
    return _current.get()


def traceparent() -> str | None:
    """Return what a job is to carry of its request's span; None without one."""
    if (span := _current.get()) is None:
        return None
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def about(job_id: str, parent: str) -> None:
    """Have the request's span say which job it is about, and be linked to that one's trace."""
    if (span := _current.get()) is None:
        return
    span.set_attribute("rejoin.job.id", job_id)
    if (context := parse(parent)) is not None:
        from shared.traces import link

        span.add_link(link(context).context)


def start(role: Literal["api", "worker"]) -> "Traces | None":
    """Begin to trace where OpenTelemetry's own variables ask for it; end the process with one line if it cannot be."""
    for name, value in dotenv_values(ENV_FILE).items():
        if name.startswith(OTEL_PREFIX) and value:
            os.environ.setdefault(name, value)

    def first(*names: str) -> str:
        return next(filter(None, (os.environ.get(name, "").strip() for name in names)), "")

    exporter = first("OTEL_TRACES_EXPORTER") or ("otlp" if first(*ENDPOINTS) else "none")
    if exporter == "none" or first("OTEL_SDK_DISABLED").lower() == "true":
        return None
    if exporter not in ("otlp", "console"):
        sys.exit("rejoin: OTEL_TRACES_EXPORTER: otlp, console or none")
    if exporter == "otlp" and (first(*PROTOCOLS) or SPOKEN) != SPOKEN:
        sys.exit(f"rejoin: OTEL_EXPORTER_OTLP_PROTOCOL: only {SPOKEN}")
    try:
        from shared.traces import Traces
    except ModuleNotFoundError as error:
        sys.exit(
            f"rejoin: traces need {error.name}: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        )
    return Traces(f"rejoin-{role}", to_console=exporter == "console")
