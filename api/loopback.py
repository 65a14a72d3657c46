"""Who asks from this machine itself: all that a server without keys answers.

A page from elsewhere asks from loopback too, through its visitor's browser (CWE-350), and so does whoever comes by a
proxy on this machine. The first is known by the name in `Host` or `Origin`, the other by what proxies add.
"""

import ipaddress
import re
from collections.abc import Iterable
from itertools import chain
from typing import Final

from starlette.requests import Request

from api.connection import peer

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(.*)")
_FORWARDED_FOR: Final = re.compile(r'\bfor="?([^",;]*)')


def is_local(request: Request) -> bool:
    """Say whether this machine asks, and nobody else through it. What cannot be read is from elsewhere."""
    names = chain(_all(request, "host"), _all(request, "x-forwarded-host"))
    return (
        all(_is_loopback(address) for address in _addresses(request))
        and all(_is_name_of_here(name) for name in names)
        and all(_is_local_origin(origin) for origin in request.headers.getlist("origin"))
    )


def _addresses(request: Request) -> Iterable[str]:
    """Return the address of whoever asks, and all that a proxy says there are before it.

    The server may have put a proxy's word in the place of the connection's own address, and the proxy a stranger's.
    """
    if request.client is not None:
        yield request.client.host
    if (address := peer(request.scope)) is not None:
        yield address
    yield from _all(request, "x-forwarded-for")
    yield from _all(request, "x-real-ip")
    for line in request.headers.getlist("forwarded"):
        yield from _FORWARDED_FOR.findall(line.lower()) or [line]


def _all(request: Request, header: str) -> Iterable[str]:
    return (part.strip() for line in request.headers.getlist(header) for part in line.split(","))


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _is_name_of_here(host: str) -> bool:
    """Say whether a `Host` is no stranger's: a name that he has bound to this machine's address has a dot in it."""
    name = _name(host)
    return name is not None and (_is_loopback_name(name) or not re.search("[.:]", name))


def _is_local_origin(origin: str) -> bool:
    parts = _ORIGIN.fullmatch(origin.lower())
    name = None if parts is None else _name(parts[1])
    return name is not None and _is_loopback_name(name)


def _name(host: str) -> str | None:
    """Return the name in what may have a port behind it."""
    parts = _HOST.fullmatch(host.lower())
    return None if parts is None else parts[1].removesuffix(".")


def _is_loopback_name(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)
