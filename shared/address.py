"""What a `REDIS_URL` says: which server, or which sentinels know it, and how to introduce ourselves there.

* `redis://[user:password@]host[:port][/db]`, `rediss://…` for TLS, `unix:///path[?db=…]`: one server
* `redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]`, `rediss+sentinel://…` for TLS: the primary
  of a service. User and password are the servers'; the sentinels' are `?sentinel_username=` and `sentinel_password=`

`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` and redis-py's other `ssl_…` are for servers and sentinels alike. redis-py
has no form for sentinels: this one is that of redis-sentinel-url, RedisVL and Prefect.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio.connection import RedisSSLContext, SSLConnection, parse_url
from redis.exceptions import RedisError

SENTINEL_PORT: Final = 26379

_SCHEMES: Final = ("redis", "rediss", "unix")
_OF_SENTINELS: Final = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_SENTINEL_NAMES: Final = ("sentinel_username", "sentinel_password")
_SSL_NAMES: Final = tuple(
    f"ssl_{name}"
    for name in ("keyfile", "certfile", "cert_reqs", "ca_certs", "ca_data", "check_hostname", "min_version", "ciphers")
)

Where = Mapping[str, Any]
"""A server as redis-py names its parts: `host` and `port` or `path`, `username`, `password`, `db`, `ssl_…`."""


@dataclass(frozen=True, slots=True)
class Address:
    server: Where
    """Without `host` and `port` where sentinels know them."""
    sentinels: tuple[Where, ...] = ()
    service: str = ""
    """What the sentinels call the server and its replicas."""


def parse(url: str) -> Address:
    """Take a URL apart. Raises ValueError, whose words are for no log: there may be a password in them."""
    scheme = url.partition(":")[0].lower()
    if any(name.startswith(("ssl_", "sentinel_")) for name in _unknown(url)):
        raise ValueError("has a parameter that is not known")
    if scheme in _OF_SENTINELS:
        return _of_sentinels(url, _OF_SENTINELS[scheme])
    parts = urlsplit(url)
    if scheme not in _SCHEMES or (parts.port or 1) < 0 or (scheme == "unix" and not parts.path):
        raise ValueError("no such form")
    return Address(_server(url))


def _unknown(url: str) -> set[str]:
    return {name for name, _ in parse_qsl(url.partition("?")[2])} - {*_SSL_NAMES, *_SENTINEL_NAMES}


def _server(url: str) -> dict[str, Any]:
    """As redis-py reads it; but a certificate has to be of whom we asked for, unless the URL says otherwise."""
    where: dict[str, Any] = dict(parse_url(url))
    if where.get("connection_class") is SSLConnection:
        verified = where.setdefault("ssl_cert_reqs", "required") == "required"
        where.setdefault("ssl_check_hostname", verified)
    return where


def _of_sentinels(url: str, scheme: str) -> Address:
    """By hand: `urlsplit` knows one host."""
    rest, _, query = url.partition("://")[2].partition("#")[0].partition("?")
    netloc, _, path = rest.partition("/")
    user, at, hosts = netloc.rpartition("@")
    service, slash, db = path.partition("/")
    if not service or (slash and not db.isdecimal()):
        raise ValueError("expected a service's name, and perhaps a database's number")
    server = _server(f"{scheme}://{user}{at}sentinels/{db}?{query}")
    user_of_sentinels = {name.removeprefix("sentinel_"): server.pop(name) for name in _SENTINEL_NAMES if name in server}
    kept = {name: value for name, value in server.items() if name == "connection_class" or name.startswith("ssl_")}
    del server["host"]
    sentinels = tuple({**kept, **user_of_sentinels, **_host(host)} for host in hosts.split(","))
    return Address(server, sentinels, unquote(service))


def _host(written: str) -> dict[str, Any]:
    parts = urlsplit(f"//{written}")
    if not parts.hostname:
        raise ValueError("expected host:port,host:port")
    return {"host": unquote(parts.hostname), "port": parts.port or SENTINEL_PORT}


def tls(where: Where) -> ssl.SSLContext | None:
    """Return the TLS context of a `rediss:` server, from its files as they are now; None for another one.

    Raises OSError for files that are not there, or are no certificates and keys; ValueError for what is no choice.
    """
    if where.get("connection_class") is not SSLConnection:
        return None
    asked = {name.removeprefix("ssl_"): value for name, value in where.items() if name.startswith("ssl_")}
    try:
        return RedisSSLContext(**asked).get()
    except (RedisError, TypeError) as error:
        raise ValueError(str(error)) from error
