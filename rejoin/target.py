"""Which server, and with which key: what was given, else the environment, else `make run`'s."""

import os
from collections.abc import Sequence
from typing import Any, Final

import httpx2

from rejoin.errors import Misuse

URL: Final = "http://127.0.0.1:8000"
URL_NAME: Final = "REJOIN_URL"
KEY_NAME: Final = "REJOIN_API_KEY"
MODEL_NAME: Final = "REJOIN_MODEL"

CONNECT_S: Final = 5.0
ANSWER_S: Final = 30.0
"""A cancel waits for the worker's word, for two seconds at most; everything else is answered within one."""
SILENCE_S: Final = 45.0
"""A stream says something every ten seconds (`REJOIN_HEARTBEAT_S`); one that has not for so long is taken for cut."""


def urls_of(url: str | Sequence[str] | None) -> list[str]:
    """Return the servers' addresses: several API processes without anything in front of them may be named."""
    given = os.environ.get(URL_NAME) or URL if url is None else url
    urls = [given] if isinstance(given, str) else list(given)
    for one in urls:
        try:
            parts = httpx2.URL(one)
            fits = parts.scheme in ("http", "https") and bool(parts.host)
        except httpx2.InvalidURL:
            fits = False
        if not fits:
            raise Misuse(f"not the address of a server: expected http://host or https://host ({URL_NAME})")
    if not urls:
        raise Misuse("no address of a server")
    return [one.rstrip("/") for one in urls]


def headers_of(key: str | None) -> dict[str, str]:
    key = os.environ.get(KEY_NAME) or None if key is None else key
    if key is None:
        return {}
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise Misuse(f"the key is not one line of ASCII ({KEY_NAME})")  # and is not shown
    return {"Authorization": f"Bearer {key}"}


def http_options(urls: Sequence[str]) -> dict[str, Any]:
    """Return how to connect. What is on this machine is not asked through a proxy of the environment."""
    here = all(httpx2.URL(url).host in ("127.0.0.1", "localhost", "::1") for url in urls)
    # Any number of streams: the server has limits, a pool that keeps its own readers waiting is none.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
    return {"trust_env": not here, "limits": limits, "timeout": httpx2.Timeout(ANSWER_S, connect=CONNECT_S)}
