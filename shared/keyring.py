"""API keys that are made by a command: kept as hashes in Redis, each with its owner and with what it may do.

A key is 256 random bits. Nobody finds one by trying, however fast the hash: a slow one, which protects passwords, would
only slow down every request. A key is looked up by what its hash is called, so that no comparison depends on the key.
"""

import secrets
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints

from shared.keys import Keys
from shared.redis import Multiplexer, Scripts
from shared.settings import OWNER_PATTERN, hash_key, key_id

KEY_PREFIX: Final = "rejoin_"
"""Tells people, and those who search repositories for secrets, what this is."""

_KEY_LENGTH: Final = len(KEY_PREFIX) + 43
MODEL_PATTERN: Final = r"^[a-z0-9][a-z0-9_.-]{0,63}/([^*\s]{1,200}|[^*\s]{0,200}\*)$"

KEEP_DEAD_S: Final = 30 * 86_400
"""How long a key that has expired or was revoked is still listed."""

ModelPattern = Annotated[str, StringConstraints(pattern=MODEL_PATTERN)]
"""`provider/model`, or the beginning of such names with a `*` behind it: `provider/*`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Which limits count, in place of the settings', when a key asks; None is the settings' own.

    What is counted is the owner's, over all of its keys.
    """

    rate_limit: PositiveInt | None = None
    max_active_jobs: PositiveInt | None = None
    max_streams: PositiveInt | None = None
    daily_usd: Annotated[Decimal, Field(gt=0, max_digits=12, decimal_places=6)] | None = None


class Terms(BaseModel):
    """What a key is given when it is made, and keeps."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    owner: Annotated[str, Field(pattern=OWNER_PATTERN)]
    name: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{0,100}$")] = ""
    expires_ms: PositiveInt | None = None
    limits: Limits = Limits()
    models: tuple[ModelPattern, ...] = ()
    """Which models it may ask for; none is all."""
    ops: bool = False
    """Whether it opens the operators' view: what runs, whoever's it is, and its cancel."""


class ApiKey(NamedTuple):
    id: str
    hashed: bytes
    terms: Terms
    created_ms: int
    revoked_ms: int | None = None

    def live(self, now_ms: int) -> bool:
        return self.revoked_ms is None and (self.terms.expires_ms is None or now_ms < self.terms.expires_ms)


def new_key() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def looks_like_key(text: str) -> bool:
    """Say whether this can be one of ours: what cannot costs no look into Redis."""
    return len(text) == _KEY_LENGTH and text.startswith(KEY_PREFIX)


def covers(patterns: tuple[str, ...], provider: str, model: str) -> bool:
    """Say whether a model is among those that a key may ask for: all, where it names none."""
    name = f"{provider}/{model}"
    return not patterns or any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns
    )


class Keyring:
    def __init__(self, redis: Multiplexer, scripts: Scripts, keys: Keys) -> None:
        self._redis = redis
        self._scripts = scripts
        self._keys = keys
        self.channel = keys.key_changes
        """Says the id of each key that is revoked."""

    async def issue(self, terms: Terms) -> tuple[str, ApiKey]:
        """Make a key and return it, with what is kept of it: the only time that anybody sees it."""
        while True:
            key = new_key()
            hashed = hash_key(key)
            id = key_id(hashed)
            names = [self._keys.api_key(id), self._keys.api_keys]
            dead_ms = "" if terms.expires_ms is None else terms.expires_ms + KEEP_DEAD_S * 1000
            args = [id, hashed.hex(), terms.model_dump_json(), dead_ms]
            created_ms = await self._scripts.run("issue", names, args, again=True)
            if created_ms > 0:
                return key, ApiKey(id, hashed, terms, created_ms)

    async def revoke(self, id: str) -> bool:
        """End a key for good, and say so to all API processes; False when there is no such key."""
        names = [self._keys.api_key(id), self._keys.key_changes]
        args = [id, KEEP_DEAD_S * 1000, secrets.token_hex(8)]
        return bool(await self._scripts.run("revoke", names, args, again=True) == 1)

    async def get(self, id: str) -> ApiKey | None:
        """Return what is kept of a key, also of a dead one."""
        fields = await self._redis.read("HMGET", self._keys.api_key(id), "hash", "terms", "created_ms", "revoked_ms")
        return _decode(id, fields)

    async def all(self) -> list[ApiKey]:
        """Return all keys, oldest first, also those that died lately."""
        found = []
        for raw_id in await self._redis.read("ZRANGE", self._keys.api_keys, 0, -1):
            if (key := await self.get(raw_id.decode())) is not None:
                found.append(key)
            else:
                await self._redis.call("ZREM", self._keys.api_keys, raw_id)
        return found

    async def last_change(self) -> bytes | None:
        """Return a mark that is another one after every revocation: while it stays, all that is known holds."""
        mark: bytes | None = await self._redis.read("GET", self._keys.key_changes)
        return mark

    async def now_ms(self) -> int:
        seconds, micros = await self._redis.read("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


def _decode(id: str, fields: list[Any]) -> ApiKey | None:
    hashed, terms, created_ms, revoked_ms = fields
    if hashed is None:
        return None
    revoked = None if revoked_ms is None else int(revoked_ms)
    return ApiKey(id, bytes.fromhex(hashed.decode()), Terms.model_validate_json(terms), int(created_ms), revoked)
