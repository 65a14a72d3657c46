"""A collector of traces on loopback: OTLP over HTTP, as the SDK's exporter speaks it."""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}


@dataclass
class Span:
    service: str
    name: str
    kind: str
    trace_id: str
    id: str
    parent: str
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    failed: bool
    start_ns: int
    end_ns: int
    events: int
    words: str = field(repr=False)
    """Its error's description."""


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


def _spans(body: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            service=next(each.value.string_value for each in of.resource.attributes if each.key == "service.name"),
            name=span.name,
            kind=KINDS[span.kind],
            trace_id=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            attributes={each.key: _value(each.value) for each in span.attributes},
            links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
            failed=span.status.code == 2,
            start_ns=span.start_time_unix_nano,
            end_ns=span.end_time_unix_nano,
            events=len(span.events),
            words=span.status.message,
        )
        for of in request.resource_spans
        for scope in of.scope_spans
        for span in scope.spans
    ]


class Collector:
    """Keeps what it is sent. One that hangs takes it and never answers."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.spans: list[Span] = []
        self.bodies = b""
        self.asked = 0
        self.paths: set[str] = set()
        self._go_on = threading.Event()
        if not hangs:
            self._go_on.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.asked += 1
                collector.paths.add(self.path)
                collector._go_on.wait()
                if self.path == "/v1/traces":
                    collector.bodies += body
                    collector.spans += _spans(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._go_on.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Have a process of ours send its spans here, and soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "20"}

    def named(self, name: str) -> list[Span]:
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.start_ns)
