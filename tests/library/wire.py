"""What stands between client and server when things go wrong, on real sockets."""

import asyncio
from collections.abc import Iterable
from typing import Self

CHUNK = 65_536


class Cutter:
    """Forwards to a port, and cuts connections: each after its number of bytes of answers."""

    def __init__(self, target: str, cuts: Iterable[int] = ()) -> None:
        self.connections = 0
        self.target = target
        self._cuts = iter(cuts)
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()

    def turn(self, target: str) -> None:
        """Cut what is open, and forward to another one from now on: as a process that was started again."""
        self.target = target
        for writer in self._open:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        left = next(self._cuts, None)
        there, back = await asyncio.open_connection("127.0.0.1", int(self.target.rpartition(":")[2]))
        up = asyncio.create_task(self._pump(reader, back))
        self._tasks.add(up)
        try:
            while chunk := await there.read(CHUNK if left is None else max(1, min(CHUNK, left))):
                if left is not None:
                    chunk = chunk[:left]
                    left -= len(chunk)
                writer.write(chunk)
                await writer.drain()
                if left == 0:
                    break
        except OSError:
            pass
        finally:
            up.cancel()
            self._open.discard(writer)
            for end in (writer, back):
                # What was written leaves before the end: the cut is where it was to be.
                end.close()

    @staticmethod
    async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(CHUNK):
            sink.write(chunk)


class Canned:
    """Answers each request with the next of these bytes, on a connection of its own; the last one for ever."""

    def __init__(self, *answers: bytes) -> None:
        self.heads: list[str] = []
        self._answers = list(answers)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        writer.write(answer)
        await writer.drain()
        writer.close()


def answer(status: int, body: bytes = b"", *headers: str, media_type: str = "application/json") -> bytes:
    """Return an HTTP answer; the connection ends with it."""
    lines = [f"HTTP/1.1 {status} x", f"Content-Type: {media_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "Connection: close", *headers, "", ""]).encode() + body
