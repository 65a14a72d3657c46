"""Which of the media types that we serve a client would rather have (RFC 9110, § 12.5.1)."""

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request

from api.problems import Problem

SSE: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"
JSON: Final = "application/json"


def accepted(request: Request, *offers: str) -> str:
    """Return the offer that the request's `Accept` likes best; a 406 problem when it likes none."""
    return choose(", ".join(request.headers.getlist("accept")), offers)


def choose(accept: str | None, offers: Sequence[str]) -> str:
    """Return the offer that the client likes best, the first of equals; a 406 problem when it likes none."""
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [_parse(part) for part in accept.split(",") if part.strip()]
    best, best_quality = "", 0.0
    for offer in offers:
        quality = _quality(offer, ranges)
        if quality > best_quality:
            best, best_quality = offer, quality
    if not best:
        raise Problem(406, "not_acceptable", f"This resource is served as {', '.join(offers)}.")
    return best


def _parse(part: str) -> tuple[str, float]:
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = min(1.0, max(0.0, float(value)))
            except ValueError:
                quality = 0.0
    return media, quality


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the quality of the most specific range that covers the offer."""
    found, found_specificity = 0.0, -1
    for media, quality in ranges:
        specificity = _specificity(media, offer)
        if specificity > found_specificity:
            found, found_specificity = quality, specificity
    return found


def _specificity(media: str, offer: str) -> int:
    if media == offer:
        return 2
    if media == f"{offer.partition('/')[0]}/*":
        return 1
    return 0 if media == "*/*" else -1
