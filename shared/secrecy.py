"""Which secrets are none: short ones, and those that an example left behind. Nobody measures randomness here."""

import re
from typing import Final

LEAST: Final = 16
"""Characters of a secret that nobody has to remember."""

LEAST_DISTINCT: Final = 6
LEAST_BESIDE: Final = 8
"""Letters and digits beside the usual words."""

PLACEHOLDERS: Final = ("changeme", "change-me", "change_me", "replaceme", "placeholder", "password")
_USUAL: Final = re.compile(
    "change|replace|place|production|please|default|example|password|passw0rd|super|secret|rejoin|value|token|"
    "admin|insert|your|here|this|holder|key|me|my|the|in"
)


def is_weak(secret: str) -> bool:
    """Say whether a secret is too short, repeats a few characters, or is made of the words that examples use."""
    beside = _USUAL.sub("", re.sub("[^a-z0-9]", "", secret.lower()))
    return len(secret) < LEAST or len(set(secret)) < LEAST_DISTINCT or len(beside) < LEAST_BESIDE
