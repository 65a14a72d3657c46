"""A client of the tests: what a browser or curl would see, byte by byte."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import httpx2

LAST = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class Event:
    id: str
    event: str
    data: dict[str, Any]

    @property
    def key(self) -> tuple[int, int]:
        attempt, _, seq = self.id.partition("-")
        return int(attempt), int(seq)


class Frames:
    """Parses SSE as the HTML standard does, also when the bytes are cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Event]:
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        return [event for block in blocks if (event := _event(block)) is not None]


def _event(block: bytes) -> Event | None:
    fields: dict[str, str] = {}
    for line in block.decode().split("\n"):
        if line and not line.startswith(":"):
            name, _, value = line.partition(":")
            assert name not in fields, f"field twice in one frame: {block!r}"
            fields[name] = value.removeprefix(" ")
    if "data" not in fields:
        return None
    return Event(fields["id"], fields["event"], json.loads(fields["data"]))


class Client:
    """Talks to one or more API processes, as somebody without any inside knowledge."""

    def __init__(self, *urls: str, key: str | None = None) -> None:
        self.urls = urls
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx2.AsyncClient(base_url=urls[0], headers=headers, timeout=30, trust_env=False, verify=False)

    async def aclose(self) -> None:
        await self.http.aclose()

    async def submit(self, model: str = "m", provider: str = "openai", **fields: Any) -> str:
        """POST a job and return its id."""
        response = await self.http.post("/v1/jobs", json=body(model, provider, **fields))
        assert response.status_code == 202, response.text
        job_id: str = response.json()["id"]
        return job_id

    async def job(self, job_id: str) -> dict[str, Any]:
        response = await self.http.get(f"/v1/jobs/{job_id}")
        assert response.status_code == 200, response.text
        job: dict[str, Any] = response.json()
        return job

    async def events(self, job_id: str, last_event_id: str | None = None, api: int = 0) -> AsyncIterator[Event]:
        """Yield the job's events from an API process until the server closes, or cuts the connection."""
        headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        frames = Frames()
        async with self.http.stream("GET", f"{self.urls[api]}/v1/jobs/{job_id}/events", headers=headers) as response:
            if response.status_code == 204:
                return
            assert response.status_code == 200, await response.aread()
            with suppress(httpx2.RemoteProtocolError, httpx2.ReadError):
                async for chunk in response.aiter_bytes():
                    for event in frames.feed(chunk):
                        yield event

    async def all_events(self, job_id: str, last_event_id: str | None = None, api: int = 0) -> list[Event]:
        return [event async for event in self.events(job_id, last_event_id, api)]

    async def until(self, job_id: str, event_name: str, api: int = 0) -> Event:
        """Return the first event of this name."""
        async with aclosing(self.events(job_id, api=api)) as events:  # type: ignore[type-var]
            async for event in events:
                if event.event == event_name:
                    return event
        raise AssertionError(f"the stream ended without {event_name}")

    async def cancel(self, job_id: str, api: int = 0) -> dict[str, Any]:
        response = await self.http.post(f"{self.urls[api]}/v1/jobs/{job_id}/cancel")
        assert response.status_code in (200, 202), response.text
        result: dict[str, Any] = response.json()
        return result


def body(model: str = "m", provider: str = "openai", **fields: Any) -> dict[str, Any]:
    return {"provider": provider, "model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}


def text(events: list[Event]) -> str:
    """Return the answer that these events add up to, as a client would put it together."""
    answer = ""
    for event in events:
        if event.event == "token":
            answer += event.data["text"]
        elif event.event == "restarted":
            answer = ""
        elif event.event == "snapshot":
            answer = event.data["text"]
    return answer
