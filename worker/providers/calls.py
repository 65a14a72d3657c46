"""One SDK's calls: the first ones are made by it, the later ones as it made those.

An SDK builds each request anew, through models, options and copies of both: 0.2 ms when hot, twice that among a job's
other work, a third of all that a worker did for a job. From one call to the next nothing changes but the body.
"""

from collections.abc import Mapping
from typing import Any, Final

import httpx2

from worker.providers.transport import Prepared, Transport

HEADERS: Final = {"Content-Type": "application/json", "X-Stainless-Raw-Response": "stream"}
"""The second is the SDKs' word for: give the response back unread."""

UNREAD: Final[Mapping[str, Any]] = {"cast_to": httpx2.Response, "options": {"headers": HEADERS}}

_OF_ONE_CALL: Final = (b"content-length", b"cookie")
"""Headers that are about one body, or from an answer to an earlier one (cookies of what stands in front of an API)."""


class Calls:
    """POSTs with one SDK's client."""

    def __init__(self, sdk: Any, transport: Transport) -> None:
        self._sdk = sdk
        self._transport = transport
        self._last: dict[str, Prepared] = {}
        self._known: dict[str, Prepared] = {}
        """What it has said twice in a row on a path. What is another each time never gets here."""

    async def post(self, path: str, body: bytes) -> httpx2.Response:
        """Return the answer, unread. Raise the SDK's error for a status that says so, its or httpx2's for no answer."""
        if (known := self._known.get(path)) is None:
            response: httpx2.Response = await self._sdk.post(path, content=body, **UNREAD)
            self._learn(path, response.request)
            return response
        response = await self._transport.ask(known, body)
        return response if 200 <= response.status_code < 300 else await self._judged(path, response)

    def _learn(self, path: str, request: httpx2.Request) -> None:
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _OF_ONE_CALL]
        said = self._transport.prepare(httpx2.Request("POST", request.url, headers=headers, content=b""))
        last = self._last.get(path)
        if last is not None and (last.origin, last.head) == (said.origin, said.head):
            self._known[path] = said
        self._last[path] = said

    async def _judged(self, path: str, response: httpx2.Response) -> httpx2.Response:
        """Have the SDK take an answer as if it had asked for it: what it is an error of is for the SDK to say."""
        given = httpx2.AsyncClient(transport=_Given(response), follow_redirects=False)
        try:
            judged: httpx2.Response = await self._sdk.with_options(http_client=given).post(path, content=b"", **UNREAD)
        except BaseException:
            await response.aclose()
            raise
        return judged


class _Given(httpx2.AsyncBaseTransport):
    """Answers whatever is asked with what is there already."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return self._response
