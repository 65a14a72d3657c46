"""Who may read `/metrics`: scrapers of the operator's own networks, without a key."""

from collections.abc import Iterable
from typing import Any

import pytest
from starlette.requests import Request

from api.connection import Connection
from api.scrapers import is_scraper
from tests import keys
from tests.stack import Stack


def request(client: str | None, peer: str | None, headers: Iterable[tuple[str, str]] = ()) -> Request:
    """Return a request as a server shows it: its own word of the client, and the connection's other end."""

    class Cycle:
        class transport:
            @staticmethod
            def abort() -> None: ...

            @staticmethod
            def get_extra_info(_: str) -> tuple[str, int] | None:
                return None if peer is None else (peer, 1)

        async def send(self, message: object) -> None: ...

    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope: dict[str, Any] = {"type": "http", "headers": raw, "client": None if client is None else (client, 1)}
    scope["rejoin.connection"] = Connection(Cycle().send)
    return Request(scope)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "192.168.0.9", "172.17.0.2", "100.64.1.1", "::1", "fd00::1", "fe80::1"]
)
def test_who_asks_from_a_private_address_may_read(address: str) -> None:
    assert is_scraper(request(address, address))
    assert is_scraper(request(address, None))


@pytest.mark.parametrize(
    ("client", "peer"),
    [
        ("8.8.8.8", "8.8.8.8"),
        ("2001:4860:4860::8888", None),
        ("::ffff:8.8.8.8", "::ffff:8.8.8.8"),
        # A proxy's word in the place of its own address, and the other way round.
        ("8.8.8.8", "10.0.0.1"),
        ("10.0.0.1", "8.8.8.8"),
        ("testclient", None),
        ("", None),
        # A socket in the file system: only a proxy asks there.
        (None, None),
    ],
)
def test_who_asks_from_elsewhere_may_not(client: str | None, peer: str | None) -> None:
    """CWE-200, CWE-348."""
    assert not is_scraper(request(client, peer))


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Real-IP"])
def test_who_comes_by_a_proxy_may_not_whomever_that_names(name: str) -> None:
    """CWE-290: proxies stand in private networks, and those behind them do not."""
    for value in ("8.8.8.8", "10.0.0.1", "127.0.0.1", "for=127.0.0.1", ""):
        assert not is_scraper(request("10.0.0.1", "10.0.0.1", [(name, value)]))


async def test_the_route_needs_no_key_and_is_nothing_to_strangers(bare: Stack) -> None:
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.api()
    await bare.api(metrics="open")
    http = bare.client().http
    assert (await http.get("/metrics")).status_code == 200
    strange = {"X-Forwarded-For": "8.8.8.8"}
    refused = await http.get("/metrics", headers=strange)
    nothing = await http.get("/metrical", headers=strange)
    assert (refused.status_code, refused.json()) == (404, nothing.json())
    assert (await http.get(f"{bare.apis[1].url}/metrics", headers=strange)).status_code == 200
    assert (await http.get("/livez", headers=strange)).status_code == 200
