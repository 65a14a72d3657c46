"""Who may read `/metrics` without a key: whoever asks from a network of the operator's, and not through a proxy.

The figures name nobody, but tell how much business there is. Whoever is not let in is told that there is nothing.
"""

from typing import Final

from starlette.requests import Request

from api.connection import peer
from shared.private import is_private

_FORWARDING: Final = frozenset((b"forwarded", b"x-forwarded-for", b"x-real-ip"))


def is_scraper(request: Request) -> bool:
    """Say whether all that is known of where a request comes from is private. What is not known is not."""
    shown = (None if request.client is None else request.client.host, peer(request.scope))
    addresses = [address for address in shown if address is not None]
    forwarded = any(name in _FORWARDING for name, _ in request.scope["headers"])
    return bool(addresses) and all(map(is_private, addresses)) and not forwarded
