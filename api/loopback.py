"""Who asks from this machine itself: all that a server without keys answers.

A page from elsewhere asks from loopback too, through its visitor's browser (CWE-350), and so does whoever comes by a
proxy on this machine. The first is known by the name in `Host` or `Origin`, the other by what proxies add.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from starlette.requests import Request

from api.connection import peer

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(.*)")
_FORWARDED_FOR: Final = re.compile(r'\bfor="?([^",;]*)')

_remembered = lru_cache(maxsize=256)
"""The same few values come with every request."""


def is_local(request: Request) -> bool:
    """Say whether this machine asks, and nobody else through it. What cannot be read is from elsewhere.

    The server may have put a proxy's word in the place of the connection's own address, and the proxy a stranger's.
    """
    addresses = (None if request.client is None else request.client.host, peer(request.scope))
    return all(address is None or _is_loopback(address) for address in addresses) and all(
        judge(value.decode("latin-1").lower())
        for name, value in request.scope["headers"]
        if (judge := _JUDGES.get(name)) is not None
    )


@_remembered
def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


@_remembered
def _are_names_of_here(hosts: str) -> bool:
    """Say whether no `Host` is a stranger's: a name that he has bound to this machine's address has a dot in it."""
    names = [_name(host.strip()) for host in hosts.split(",")]
    return all(name is not None and (_is_loopback_name(name) or not re.search("[.:]", name)) for name in names)


@_remembered
def _is_local_origin(origin: str) -> bool:
    parts = _ORIGIN.fullmatch(origin)
    name = None if parts is None else _name(parts[1])
    return name is not None and _is_loopback_name(name)


@_remembered
def _are_loopback(addresses: str) -> bool:
    return all(_is_loopback(address.strip()) for address in addresses.split(","))


@_remembered
def _is_forwarded_from_here(forwarded: str) -> bool:
    """Judge an RFC 7239 header; one that does not say for whom is not from here."""
    addresses = _FORWARDED_FOR.findall(forwarded)
    return bool(addresses) and all(map(_is_loopback, addresses))


def _name(host: str) -> str | None:
    """Return the name in what may have a port behind it."""
    parts = _HOST.fullmatch(host)
    return None if parts is None else parts[1].removesuffix(".")


def _is_loopback_name(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


_JUDGES: Final[Mapping[bytes, Callable[[str], bool]]] = {
    b"host": _are_names_of_here,
    b"x-forwarded-host": _are_names_of_here,
    b"origin": _is_local_origin,
    b"x-forwarded-for": _are_loopback,
    b"x-real-ip": _are_loopback,
    b"forwarded": _is_forwarded_from_here,
}
