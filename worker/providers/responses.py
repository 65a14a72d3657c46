"""OpenAI's Responses in background mode: a run that goes on whoever listens, and that can be listened to again."""

import asyncio
import logging
import re
from contextlib import suppress
from typing import Any, Final

from openai import APIConnectionError, APIStatusError, AsyncOpenAI

from shared.events import Answer, load
from shared.prices import Usage
from shared.requests import JobRequest
from shared.settings import ProviderConfig
from worker.providers import http
from worker.providers.base import (
    Finish,
    NotAStream,
    NotConfigured,
    RunLost,
    Sink,
    StreamError,
    Truncated,
    figure,
    model_name,
    text,
    word,
)
from worker.providers.calls import Calls
from worker.providers.responses_request import body
from worker.providers.run import Run
from worker.providers.sse import ServerSentEvent
from worker.providers.transport import Transport

logger = logging.getLogger(__name__)

LIVE: Final = ("queued", "in_progress")
REASONS: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}

ID: Final = re.compile("[A-Za-z0-9_-][A-Za-z0-9_.:-]{0,255}")

BETWEEN_PARTS: Final = "\n\n"
"""Between the parts of a summary of thinking, each a heading and what is under it."""

POLL_S: Final = 1.0
"""Between two looks at a run that can be read, and not listened to."""

NAME_S: Final = 10.0
"""How long a call that is given up may take to say what its run is called: without a name it cannot be cancelled."""

CLOSE_S: Final = 2.0
CANCEL_TRIES: Final = 3


class ResponsesProvider:
    """Streams `POST /responses`, goes on with `GET /responses/{id}`, as the other providers stream."""

    def __init__(self, config: ProviderConfig, transport: Transport) -> None:
        key = config.api_key.get_secret_value() if config.api_key else None
        if key is None and config.base_url is None:
            raise NotConfigured
        self._client = AsyncOpenAI(
            api_key=key or "none",
            base_url=config.base_url,
            max_retries=0,
            timeout=None,
            http_client=http.client(transport),
        )
        self._calls = Calls(self._client, transport)
        self._unnamed: set[asyncio.Task[None]] = set()
        """Calls that nobody waits for any more, until their runs have names and are cancelled."""

    async def generate(self, request: JobRequest, sink: Sink) -> Finish:
        if sink.run is not None:
            return await self._go_on(sink.run, sink)
        listener = _Listener(sink)
        call = asyncio.create_task(http.stream(self._calls, "/responses", body(request), sink, listener.take))
        try:
            await asyncio.shield(call)
        except asyncio.CancelledError:
            if listener.run is None and not call.done():
                listener.give_up()
                self._later(self._disown(call, listener))
            else:
                call.cancel()
                await asyncio.wait([call])
            raise
        return listener.finish()

    async def cancel(self, run_id: str) -> None:
        try:
            await http.tell(self._client, f"/responses/{run_id}/cancel")
        except APIStatusError as error:
            # 400: it has ended; 404: there is none.
            if error.status_code not in (400, 404, 409):
                raise

    async def close(self) -> None:
        if self._unnamed:
            _, late = await asyncio.wait(self._unnamed, timeout=CLOSE_S)
            for task in late:
                task.cancel()
        await self._client.close()

    async def _go_on(self, run: Run, sink: Sink) -> Finish:
        """Listen to a run from where it was left; where that cannot be, take what is missing from its end."""
        listener = _Listener(sink, run)
        query = {"stream": "true", "starting_after": run.at, "include_obfuscation": "false"}
        try:
            await http.follow(self._client, f"/responses/{run.id}", query, sink, listener.take)
        except APIStatusError as error:
            if error.status_code not in (400, 404):
                raise
            return await self._read_off(run, sink, wait=True)
        except (_Gap, NotAStream):
            return await self._read_off(run, sink, wait=True)
        except StreamError:
            if listener.heard:
                raise
            # It had failed before anybody listened again.
            raise RunLost from None
        if listener.whole or listener.heard:
            return listener.finish()
        return await self._read_off(run, sink, wait=False)

    async def _read_off(self, run: Run, sink: Sink, *, wait: bool) -> Finish:
        """Take what is missing from the finished response. Raises RunLost when it does not go on from what is there."""
        while True:
            response = await self._response(run)
            if response["status"] not in LIVE:
                break
            if not wait:
                raise Truncated
            await asyncio.sleep(POLL_S)
        run.over = True
        if response["status"] not in ("completed", "incomplete"):
            raise RunLost
        _hand_on_rest(response["output"], run.written or Answer(), sink)
        return _finish(response)

    async def _response(self, run: Run) -> dict[str, Any]:
        try:
            response: dict[str, Any] = await http.read(self._client, f"/responses/{run.id}")
        except APIStatusError as error:
            if error.status_code != 404:
                raise
            run.over = True
            raise RunLost from None
        return response

    def _later(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._unnamed.add(task)
        task.add_done_callback(self._unnamed.discard)

    async def _disown(self, call: "asyncio.Task[None]", listener: "_Listener") -> None:
        """Wait for the name of a run that nobody wants any more, and cancel it."""
        with suppress(Exception):
            async with asyncio.timeout(NAME_S):
                await call
        if listener.run is None:
            logger.warning("a call was given up before its run had a name: it may go on unread")
            return
        for left in reversed(range(CANCEL_TRIES)):
            try:
                await self.cancel(listener.run.id)
                return
            except (APIStatusError, APIConnectionError) as error:
                logger.warning("a run that nobody knows could not be cancelled (%s)", type(error).__name__)
            await asyncio.sleep(POLL_S if left else 0)


class _Gap(Exception):
    """The events right behind the bookmark are not there."""


class _Listener:
    """Hands on what one connection tells of a run, event by event."""

    def __init__(self, sink: Sink, run: Run | None = None) -> None:
        self._sink = sink
        self.run = run
        self._joining = run is not None
        self.heard = False
        """Whether anything of the answer has come."""
        self._given_up = False
        self._response: dict[str, Any] | None = None

    def give_up(self) -> None:
        """Listen on for the run's name alone."""
        self._given_up = True

    @property
    def whole(self) -> bool:
        return self._response is not None

    def finish(self) -> Finish:
        """Return how it ended; raise Truncated when it did not."""
        if self._response is None:
            raise Truncated
        return _finish(self._response)

    def take(self, event: ServerSentEvent) -> bool:
        """Take one event; True at the end marker."""
        piece = load(event.data)
        run = self.run
        if run is None:
            if "response" not in piece:
                return self._hand_on(piece)
            self.run = Run(_name(piece["response"]["id"]), _number(piece["sequence_number"]))
            if self._given_up:
                return True
            self._sink.running(self.run)
            return self._hand_on(piece)
        number = _number(piece.get("sequence_number", run.at))
        if self._joining:
            if number <= run.at:
                return False
            if number > run.at + 1:
                raise _Gap
            self._joining = False
        done = self._hand_on(piece)
        # Only now: what the bookmark names has been handed on.
        run.at = number
        return done

    def _hand_on(self, piece: dict[str, Any]) -> bool:
        match piece["type"]:
            case "response.output_text.delta":
                self.heard = True
                self._sink.text(piece["delta"])
            case "response.refusal.delta":
                self.heard = True
                self._sink.refusal(piece["delta"])
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                self.heard = True
                self._sink.reasoning(piece["delta"])
            case "response.reasoning_summary_part.added" if piece["summary_index"] > 0:
                self._sink.reasoning(BETWEEN_PARTS)
            case "response.output_item.added" if piece["item"]["type"] == "function_call":
                self._call(piece["output_index"], piece["item"])
            case "response.function_call_arguments.delta":
                self._sink.tool_call(self._calls.index(piece["output_index"]), piece["delta"])
            case "response.completed" | "response.incomplete":
                self._over()
                self._response = piece["response"]
                return True
            case "response.failed" | "response.cancelled":
                self._over()
                if (usage := _usage(piece["response"].get("usage"))) is not None:
                    self._sink.usage(usage)
                raise StreamError(piece["response"].get("error"))
            case "error":
                # Nested or flat; whether the run goes on is not said.
                raise StreamError(piece.get("error") or piece)
        return False

    @property
    def _calls(self) -> list[int]:
        return self.run.calls if self.run is not None else []

    def _call(self, index: int, item: dict[str, Any]) -> None:
        self.heard = True
        self._calls.append(index)
        self._sink.tool_call(len(self._calls) - 1, item["arguments"], item["call_id"], item["name"])

    def _over(self) -> None:
        if self.run is not None:
            self.run.over = True


def _name(id: object) -> str:
    """Return a run's id. Raises ValueError for what is none: it goes into addresses, and into our own record."""
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise ValueError("not an id")
    return id


def _number(told: object) -> int:
    if type(told) is not int or told < 0:
        raise ValueError("not a number of an event")
    return told


def _finish(response: dict[str, Any]) -> Finish:
    """Return how a response ended that is as whole as it will be."""
    usage, model = _usage(response.get("usage")), model_name(response.get("model"))
    return Finish(_reason(response), usage, _thoughts(response["output"]), model=model)


def _reason(response: dict[str, Any]) -> str:
    if response["status"] == "incomplete":
        reason = word((response.get("incomplete_details") or {}).get("reason"))
        return REASONS.get(reason, reason)
    return "tool_calls" if any(item["type"] == "function_call" for item in response["output"]) else "stop"


def _parts(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts of all that was said."""
    return [part for item in output if item["type"] == "message" for part in item["content"]]


def _usage(raw: Any) -> Usage | None:
    if not isinstance(raw, dict):
        return None
    return Usage.told(
        input_tokens=figure(raw, "input_tokens"),
        cached_input_tokens=figure(raw.get("input_tokens_details"), "cached_tokens"),
        output_tokens=figure(raw, "output_tokens"),
        reasoning_tokens=figure(raw.get("output_tokens_details"), "reasoning_tokens"),
    )


def _thoughts(output: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the thinking as a follow-up turn gives it back."""
    blocks = []
    for item in output:
        if item["type"] == "reasoning":
            block = {"type": "reasoning", "id": text(item["id"]), "text": _summary(item)}
            if item.get("encrypted_content"):
                block["data"] = text(item["encrypted_content"])
            blocks.append(block)
    return blocks


def _summary(item: dict[str, Any]) -> str:
    return BETWEEN_PARTS.join(part["text"] for part in item.get("summary") or ())


def _hand_on_rest(output: list[dict[str, Any]], written: Answer, sink: Sink) -> None:
    """Hand on what of a finished output is not written yet. Raises RunLost when it does not go on from what is."""
    said = [(part["type"], part.get("text") or part.get("refusal") or "") for part in _parts(output)]
    text = "".join(piece for _, piece in said)
    calls = [item for item in output if item["type"] == "function_call"]
    known = written.tool_calls
    begun = zip(calls, known, strict=False)
    if (
        not text.startswith(written.text)
        or len(calls) < len(known)
        or any(
            call["call_id"] != old["id"] or not call["arguments"].startswith(old["arguments"]) for call, old in begun
        )
    ):
        raise RunLost
    thinking = "".join(_summary(item) for item in output if item["type"] == "reasoning")
    if thinking.startswith(written.reasoning):
        sink.reasoning(thinking[len(written.reasoning) :])
    known_characters = len(written.text)
    for kind, piece in said:
        (sink.refusal if kind == "refusal" else sink.text)(piece[known_characters:])
        known_characters = max(0, known_characters - len(piece))
    for index, call in enumerate(calls):
        if index < len(known):
            sink.tool_call(index, call["arguments"][len(known[index]["arguments"]) :])
        else:
            sink.tool_call(index, call["arguments"], call["call_id"], call["name"])
