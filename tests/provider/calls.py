"""What the provider saw and sent: one Call for every request for a generation."""

import asyncio
import time
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tests.provider.runs import Run

DialectName = Literal["openai", "responses", "anthropic"]


class Call:
    """One request for a generation, from the moment it has arrived whole.

    Exactly one of four ends: `finished` (the script was played to its end, whatever end that was), `closed_by_client`
    (the client left before), `cancelled` (a background response was), or none (the provider was shut down). Times are
    `time.monotonic()`.
    """

    def __init__(self, number: int, dialect: DialectName, headers: dict[str, str], body: dict[str, Any]) -> None:
        self.number = number
        """Order of arrival, from 0."""
        self.dialect = dialect
        self.headers = headers
        """Names in lower case."""
        self.body = body
        self.model = str(body.get("model", ""))
        self.stream = body.get("stream") is True
        self.rejected: str | None = None
        """Why the request was refused (400), if it was."""
        self.started_at = time.monotonic()
        self.ended_at: float | None = None
        self.closed_at: float | None = None
        """When the client's leaving was noticed."""
        self.finished = False
        self.run: Run | None = None
        """The response behind a call of the Responses API, with all who read it; None for one that was refused."""
        self._sent: dict[str, list[str]] = {}
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        state = (
            "finished"
            if self.finished
            else "closed by client"
            if self.closed_by_client
            else "cancelled"
            if self.cancelled
            else "open"
        )
        return f"<Call {self.number} {self.dialect} {self.model!r} {state}>"

    @property
    def closed_by_client(self) -> bool:
        return self.closed_at is not None

    @property
    def cancelled(self) -> bool:
        return self.run is not None and self.run.cancelled

    @property
    def sent_text(self) -> str:
        """The text deltas handed to the socket so far, joined; of a background response, generated so far."""
        return "".join(self._sent.get("text", ()))

    @property
    def sent_reasoning(self) -> str:
        return "".join(self._sent.get("reasoning", ()))

    @property
    def sent_refusal(self) -> str:
        return "".join(self._sent.get("refusal", ()))

    @property
    def sent_arguments(self) -> str:
        """The arguments of all its tool calls, joined."""
        return "".join(self._sent.get("arguments", ()))

    @property
    def sent_tokens(self) -> int:
        """How many text deltas were sent so far."""
        return len(self._sent.get("text", ()))

    async def ended(self, timeout_s: float = 5.0) -> None:
        """Return when the call has ended, either way. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await self._ended.wait()

    async def closed(self, timeout_s: float = 5.0) -> float:
        """Return `closed_at` as soon as the client has left. Raises TimeoutError; AssertionError if it never will."""
        await self.ended(timeout_s)
        if self.closed_at is None:
            raise AssertionError(f"{self!r}: it ended, and the client had not left")
        return self.closed_at

    def summary(self) -> dict[str, Any]:
        """Return it all as plain JSON values (the journal of a provider that is another process)."""
        return {
            "number": self.number,
            "dialect": self.dialect,
            "model": self.model,
            "stream": self.stream,
            "headers": self.headers,
            "body": self.body,
            "rejected": self.rejected,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "closed_at": self.closed_at,
            "finished": self.finished,
            "closed_by_client": self.closed_by_client,
            "sent_text": self.sent_text,
            "sent_reasoning": self.sent_reasoning,
            "sent_refusal": self.sent_refusal,
            "sent_arguments": self.sent_arguments,
            "sent_tokens": self.sent_tokens,
            "run": None if self.run is None else self.run.summary(),
        }

    # For the provider itself.

    def note(self, kind: str, piece: str) -> None:
        """Record a piece that was sent."""
        self._sent.setdefault(kind, []).append(piece)

    def end(self, *, finished: bool = False, client_left: bool = False) -> None:
        """Record how it ended; the first end counts."""
        if self.ended_at is None:
            self.ended_at = time.monotonic()
            self.finished = finished
            self.closed_at = self.ended_at if client_left else None
            self._ended.set()
