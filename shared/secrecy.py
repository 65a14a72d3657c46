"""Which secrets are none: short ones, and those that an example left behind. Nobody measures randomness here."""

import re
from typing import Final

LEAST: Final = 16
"""Characters of a secret that nobody has to remember."""

LEAST_DISTINCT: Final = 6
LEAST_BESIDE: Final = 8
"""Letters and digits beside the usual words."""

PLACEHOLDERS: Final = ("changeme", "change-me", "change_me", "replaceme", "placeholder", "password")
LEFT_BEHIND: Final = (*PLACEHOLDERS, "change", "replace", "example", "default", "your", "here")
_USUAL: Final = re.compile(
    "change|replace|place|production|please|default|example|password|passw0rd|super|secret|rejoin|value|token|"
    "admin|insert|your|here|this|holder|key|me|my|the|in"
)


def _is_made_of_usual_words(secret: str) -> bool:
    return len(_USUAL.sub("", re.sub("[^a-z0-9]", "", secret.lower()))) < LEAST_BESIDE


def is_weak(secret: str) -> bool:
    """Say whether a secret must not be used: it is too short, or an example's that somebody was told to change."""
    left_behind = any(word in secret.lower() for word in LEFT_BEHIND)
    return len(secret) < LEAST or (left_behind and _is_made_of_usual_words(secret))


def is_doubtful(secret: str) -> bool:
    """Say whether a secret looks like one of a trial: it repeats a few characters, or usual words."""
    return len(set(secret)) < LEAST_DISTINCT or _is_made_of_usual_words(secret)
