"""What the real providers refuse, as far as a client of theirs is likely to get it wrong."""

from collections.abc import Mapping
from typing import Any

from tests.provider import chat_checks, messages_checks, responses_checks
from tests.provider.complaints import Complaint
from tests.provider.runs import Run

OPENAI_FIELDS = frozenset(chat_checks.FIELDS)
RESPONSES_FIELDS = frozenset(responses_checks.FIELDS)
ANTHROPIC_FIELDS = frozenset({*messages_checks.REQUIRED, *messages_checks.OPTIONAL})
"""What a request may say. (The SDK has dropped the sampling parameters from its signature, the API has not.)"""


def openai_complaint(body: Any) -> Complaint | None:
    """Return what `POST /v1/chat/completions` would refuse first in this body."""
    return next(chat_checks.chat_complaints(body), None)


def responses_complaint(body: Any, runs: Mapping[str, Run]) -> Complaint | None:
    """Return what `POST /v1/responses` would refuse first in this body, by a server that has these runs."""
    return next(responses_checks.responses_complaints(body, runs), None)


def anthropic_complaint(headers: Mapping[str, str], body: Any) -> Complaint | None:
    """Return what `POST /v1/messages` would refuse first in this request."""
    return next(messages_checks.messages_complaints(headers, body), None)
