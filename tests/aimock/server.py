"""aimock (npm `@copilotkit/aimock`) as a process of its own: an LLM mock server that nobody here wrote.

What a request is answered with hangs on its model: `plain`, `tool`, `error-429` … (`fixtures.json`, in aimock's own
format). One fixture serves both APIs. A model without a fixture gets a 404, as it would from the providers.
"""

import json
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from tests import npm

HERE: Final = Path(__file__).parent
OLDEST_NODE: Final = (20, 15)

START_S: Final = 20

Fixture = dict[str, Any]

FIXTURES: Final[list[Fixture]] = json.loads((HERE / "fixtures.json").read_text())["fixtures"]

UNKNOWN: Final[Fixture] = {
    "match": {},
    "response": {
        "status": 404,
        "error": {"type": "not_found_error", "code": "model_not_found", "message": "no fixture for this request"},
    },
}
"""Takes what nothing else takes. aimock's own answer would be a 503, which reads as an overload."""


def find_node() -> str | None:
    """Return a Node.js that can run aimock."""
    return npm.find_node(OLDEST_NODE)


def install() -> None:
    """Install aimock, unless it is there. Raises `npm.NotInstalled` without npm."""
    npm.install(HERE)


@contextmanager
def serve(node: str) -> Iterator[str]:
    """Run aimock on a free port of loopback and yield its URL. It ends with the block, or with this process."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AIMOCK_")}
    with subprocess.Popen(
        [node, str(HERE / "server.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        try:
            assert process.stdout is not None
            said_something, _, _ = select.select([process.stdout], [], [], START_S)
            url = process.stdout.readline().strip() if said_something else ""
            if not url:
                raise RuntimeError("aimock did not start")
            yield url
        finally:
            process.kill()


@dataclass(frozen=True)
class Request:
    """One request for a generation, as aimock's journal has it."""

    path: str
    headers: dict[str, str]
    """Names in lower case; keys are redacted."""
    body: dict[str, Any]
    """In OpenAI's shape, also when the request was in Anthropic's: of that, what has no place in it is missing."""
    status: int
    fault: str | None
    """What aimock did to the answer on purpose: `disconnect`, `malformed`, `truncateAfterChunks` …"""

    @property
    def model(self) -> str:
        return str(self.body["model"])


class Aimock:
    """The running server, as a test sees it."""

    def __init__(self, url: str) -> None:
        self.openai_url = f"{url}/v1"
        self.anthropic_url = url
        self._http = httpx2.AsyncClient(base_url=url, timeout=5, trust_env=False, verify=False)

    async def __aenter__(self) -> "Aimock":
        """Begin anew: no journal, no counters, the standard fixtures."""
        await self._control("POST", "reset")
        await self.load()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def load(self, *fixtures: Fixture) -> None:
        """Put a test's own fixtures before the standard ones. Sequences (`recovers`) begin again."""
        await self._control("DELETE", "fixtures")
        await self._control("POST", "fixtures", {"fixtures": [*fixtures, *FIXTURES, UNKNOWN]})

    async def requests(self) -> list[Request]:
        """Return the requests since the test began, oldest first."""
        return [
            Request(
                path=entry["path"],
                headers=entry["headers"],
                body=entry["body"],
                status=entry["response"]["status"],
                fault=entry["response"].get("chaosAction") or entry["response"].get("interruptReason"),
            )
            for entry in await self._control("GET", "journal")
        ]

    async def _control(self, method: str, name: str, body: Any = None) -> Any:
        response = await self._http.request(method, f"/__aimock/{name}", json=body)
        assert response.status_code == 200, response.text
        return response.json()


def answer(model: str) -> str:
    """Return the text that a standard fixture answers with, when no tool has been called yet."""
    content = next(fixture["response"]["content"] for fixture in FIXTURES if fixture["match"]["model"] == model)
    return content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
