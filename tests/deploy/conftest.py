"""Fixtures of the deployment's tests: nginx as it is configured in `deploy/nginx`."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.nginx import Nginx, find_nginx

StartNginx = Callable[..., Awaitable[Nginx]]


@pytest.fixture
async def nginx_if_any() -> AsyncIterator[StartNginx | None]:
    """Starts an nginx in front of the given URLs; None where there is none to start."""
    if find_nginx() is None:
        yield None
        return
    async with AsyncExitStack() as exits:

        async def start(*upstreams: str, **options: Any) -> Nginx:
            folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="rejoin-nginx-"))
            server = Nginx(Path(folder), upstreams, **options)
            exits.push_async_callback(server.stop)
            await server.start()
            return server

        yield start


@pytest.fixture
def nginx(nginx_if_any: StartNginx | None) -> StartNginx:
    if nginx_if_any is None:
        pytest.skip("there is no nginx (Debian, Ubuntu: apt install nginx)")
    return nginx_if_any
