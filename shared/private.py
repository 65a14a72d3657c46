"""Which addresses are of networks that an operator has for himself."""

import ipaddress
from functools import lru_cache
from typing import Final

_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
"""Private as well, to operators of overlays; Python counts it as neither."""


@lru_cache(maxsize=256)
def is_private(address: str) -> bool:
    """Say whether an address is loopback, private or link-local; one that cannot be read is not."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    found = mapped or found
    return found.is_private or found.is_link_local or found in _SHARED
