"""A provider that means harm: bytes as they are, as fast as the socket takes them, from threads of its own."""

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

Attack = Callable[[str], Iterable[bytes]]
"""What is sent to a call, by the dialect that it speaks (`openai`, `anthropic`)."""

LONGEST_S = 20.0
"""An attack that nobody cuts ends by itself, so that a test can say so."""

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
OPEN = SSE + b"\r\n"
"""The head of a stream that ends with its connection."""
CHUNKED = SSE + b"Transfer-Encoding: chunked\r\n\r\n"


class Attacker:
    """Answers calls by the attack that their model names. Use as `with`."""

    def __init__(self, attacks: dict[str, Attack]) -> None:
        self._attacks = attacks
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.heads: list[bytes] = []
        """What was asked, without bodies."""
        self.left: set[str] = set()
        """The calls whose connections were closed by who had asked."""
        self.sent: dict[str, int] = {}
        self._threads: list[threading.Thread] = []
        self._over = False

    @property
    def openai_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def anthropic_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _begin(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._begin(lambda connection=connection: self._serve(connection))  # type: ignore[misc]

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(0.2)
            model = ""
            while (request := _request(connection, lambda: self._over)) is not None:
                head, body = request
                self.heads.append(head)
                model = json.loads(body)["model"]
                self._attack(connection, model, "anthropic" if b"/messages " in head else "openai")
                if model in self.left:
                    return
            if not self._over:
                self.left.add(model)

    def _attack(self, connection: socket.socket, model: str, dialect: str) -> None:
        until_s = time.monotonic() + LONGEST_S
        self.sent[model] = 0
        try:
            for piece in self._attacks[model](dialect):
                view = memoryview(piece)
                while view and not self._over and time.monotonic() < until_s:
                    with suppress(TimeoutError):
                        sent = connection.send(view)
                        self.sent[model] += sent
                        view = view[sent:]
                    if _left(connection):
                        raise ConnectionResetError
        except OSError:
            self.left.add(model)


def _left(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""


def _request(connection: socket.socket, over: Callable[[], bool]) -> tuple[bytes, bytes] | None:
    """Return head and body of the next request; None when there is none."""
    data = b""

    def read() -> Iterator[bool]:
        nonlocal data
        while not over():
            with suppress(TimeoutError):
                piece = connection.recv(65_536)
                if not piece:
                    return
                data += piece
                yield True

    for _ in read():
        head, blank, rest = data.partition(b"\r\n\r\n")
        if blank:
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if len(rest) >= int(lengths[0].partition(b":")[2]):
                return head, rest
    return None


def chunk(data: bytes) -> bytes:
    """Return a piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(dialect: str, kind: str, value: str | dict[str, object]) -> bytes:
    """Return one event of a stream; a string is JSON as it is."""
    data = value if isinstance(value, str) else json.dumps(value)
    name = f"event: {kind}\n" if dialect == "anthropic" else ""
    return f"{name}data: {data}\n\n".encode("utf-8", "surrogatepass")


def begin(dialect: str) -> bytes:
    """Return what opens a stream and its first text."""
    if dialect == "openai":
        return b""
    start = event(dialect, "message_start", {"type": "message_start", "message": {"usage": {"input_tokens": 3}}})
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return start + event(dialect, "content_block_start", block)


def text(dialect: str, raw: str) -> bytes:
    """Return a delta of text, whose JSON is `raw`."""
    if dialect == "openai":
        return event(dialect, "", f'{{"choices":[{{"index":0,"delta":{{"content":{raw}}}}}]}}')
    delta = f'{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":{raw}}}}}'
    return event(dialect, "content_block_delta", delta)


def call(dialect: str, raw_index: str, raw_id: str, raw_name: str, arguments: str = "") -> bytes:
    """Return what begins a tool call, of raw JSON."""
    if dialect == "openai":
        function = f'{{"name":{raw_name},"arguments":{json.dumps(arguments)}}}'
        piece = f'{{"index":{raw_index},"id":{raw_id},"type":"function","function":{function}}}'
        return event(dialect, "", f'{{"choices":[{{"index":0,"delta":{{"tool_calls":[{piece}]}}}}]}}')
    block = f'{{"type":"tool_use","id":{raw_id},"name":{raw_name},"input":{{}}}}'
    opening = f'{{"type":"content_block_start","index":{raw_index},"content_block":{block}}}'
    return event(dialect, "content_block_start", opening) + (more(dialect, raw_index, arguments) if arguments else b"")


def more(dialect: str, raw_index: str, arguments: str) -> bytes:
    """Return a piece of a tool call's arguments."""
    if dialect == "openai":
        piece = f'{{"index":{raw_index},"function":{{"arguments":{json.dumps(arguments)}}}}}'
        return event(dialect, "", f'{{"choices":[{{"index":0,"delta":{{"tool_calls":[{piece}]}}}}]}}')
    delta = {"type": "input_json_delta", "partial_json": arguments}
    return event(
        dialect, "content_block_delta",
        f'{{"type":"content_block_delta","index":{raw_index},"delta":{json.dumps(delta)}}}',
    )  # fmt: skip


def usage(dialect: str, raw_input: str, raw_output: str, raw_rest: str) -> bytes:
    """Return figures of usage; `raw_rest` for each other figure that there is."""
    if dialect == "openai":
        details = f'"prompt_tokens_details":{{"cached_tokens":{raw_rest}}}'
        written = f'"completion_tokens_details":{{"reasoning_tokens":{raw_rest}}}'
        figures = f'"prompt_tokens":{raw_input},"completion_tokens":{raw_output},{details},{written}'
        return event(dialect, "", f'{{"choices":[],"usage":{{{figures}}}}}')
    figures = f'"input_tokens":{raw_input},"output_tokens":{raw_output},"cache_read_input_tokens":{raw_rest}'
    return event(dialect, "message_delta", f'{{"type":"message_delta","delta":{{}},"usage":{{{figures}}}}}')


def finish(dialect: str) -> bytes:
    """Return a proper end."""
    if dialect == "openai":
        return b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    stop = event(dialect, "message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
    return stop + event(dialect, "message_stop", {"type": "message_stop"})
