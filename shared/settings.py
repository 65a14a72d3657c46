"""Every setting of API and worker, read from the environment or `.env`, checked before anything starts."""

import hashlib
import os
import re
import secrets
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from shared import address
from shared.limits import Limit
from shared.logs import Format, Level
from shared.secrecy import LEAST, PLACEHOLDERS, is_weak

ENV_FILE = ".env"
OUR_PREFIX = "REJOIN_"
CLIENT_NAMES = frozenset(("REJOIN_URL", "REJOIN_API_KEY", "REJOIN_MODEL"))
"""What the client and the command line read (`rejoin/target.py`): no settings, and no mistakes, beside a server's."""

OWNER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$"
PROVIDER_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,63}$"


def _check_base_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("expected http://host/path or https://host/path")
    return value


BaseUrl = Annotated[str, AfterValidator(_check_base_url)]

RUNNABLE_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"

Honoured = Literal[
    "system", "max_tokens", "temperature", "top_p", "stop", "seed",
    "tools", "images", "response_format", "reasoning", "finish_reason",
]  # fmt: skip


class ProviderConfig(BaseModel):
    """One provider under one name: which SDK speaks to it, where, with which key."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["openai", "openai-responses", "anthropic", "langchain", "demo"]
    base_url: BaseUrl | None = None
    api_key: SecretStr | None = None
    models: list[str] = []
    """What the page and `GET /v1/models` offer; any other model may be asked for all the same."""
    continues: bool | None = None
    """Whether it can go on from the beginning of an answer (vLLM: `continue_final_message`); None: as its kind can."""
    runnable: Annotated[str, Field(pattern=RUNNABLE_PATTERN)] | None = None
    """`module:attribute` of a LangChain Runnable. Only workers import it."""
    honours: list[Honoured] = ["system"]
    """What a request may ask of the runnable beside its messages: nobody can know but who wrote it."""

    def misfit(self) -> str | None:
        """Say what does not go together in this row; None when it can be used."""
        if self.kind == "langchain":
            if self.runnable is None:
                return "has no runnable"
            if self.base_url is not None or self.api_key is not None:
                return "is a runnable of its own: it has no base_url and no api_key"
        elif self.runnable is not None or "honours" in self.model_fields_set:
            return "has a runnable or honours, which only kind langchain has"
        elif self.kind != "demo" and self.base_url is None and self.api_key is None:
            return "has neither base_url nor api_key"
        return None


BUILT_IN_PROVIDERS = ("openai", "openai-responses", "anthropic", "demo")


def hash_key(key: str) -> bytes:
    """Return what is kept of an API key: its SHA-256."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def key_id(hashed: bytes) -> str:
    """Return what an API key is called where it may be seen: tells keys apart, opens nothing."""
    return "key_" + hashlib.sha256(hashed).hexdigest()[:12]


def _split_keys(value: object) -> object:
    """Turn ``owner:key,owner:key`` into hashes by owner; the keys themselves are not kept."""
    if not isinstance(value, str):
        return value
    keys: dict[bytes, str] = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        owner, colon, key = part.partition(":")
        if not colon or not key:
            raise ValueError("expected owner:key,owner:key")
        if key.lower() in PLACEHOLDERS:
            raise ValueError("a key is still an example's")
        if keys.setdefault(hash_key(key), owner) != owner:
            raise ValueError("the same key stands for two owners")
    return keys


def _split_list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _check_secrets(secrets: list[SecretStr]) -> list[SecretStr]:
    if any(is_weak(secret.get_secret_value()) for secret in secrets):
        raise ValueError(
            f"too weak: at least {LEAST} characters, and none of an example's "
            "(python3 -c 'import secrets; print(secrets.token_urlsafe(32))'); with a comma, a new one and an old one"
        )
    return secrets


def _check_redis_url(value: str) -> str:
    try:
        where = address.parse(value)
    except ValueError:
        raise ValueError(
            "expected redis://host:port/db, rediss://…, unix:///path or redis+sentinel://host:port,host:port/service/db"
        ) from None
    try:
        address.tls(where.server)
    except (OSError, ValueError) as error:
        raise ValueError(f"its ssl_… files cannot be used ({type(error).__name__})") from None
    return value


_BETWEEN_URLS = re.compile(r"[\s,]+(?=[a-z+]+://)")
"""(A URL of sentinels has commas of its own.)"""

_STREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}")


def _split_stream_urls(value: object) -> object:
    """Turn ``url,url`` into URLs by name: what is behind a `#`, else the server's address."""
    if not isinstance(value, str):
        return value
    servers: dict[str, str] = {}
    for part in _BETWEEN_URLS.split(value.strip()):
        if not part:
            continue
        url, _, name = part.rstrip(", ").partition("#")
        _check_redis_url(url)
        name = name or url.partition("?")[0].partition("://")[2].rpartition("@")[2].strip("/")
        if not _STREAM_NAME.fullmatch(name):
            raise ValueError(
                "a server needs a name of letters, digits and _.:/- behind its URL: redis://host:6379/0#events-1"
            )
        if servers.setdefault(name, url) != url:
            raise ValueError(f"two servers are called {name!r}")
    return servers


_ORIGIN = re.compile(r"(https?)://([a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")


def _check_origin(value: str) -> str:
    """Refuse what no browser writes: it would never be equal to an `Origin`."""
    parts = _ORIGIN.fullmatch(value)
    usual = None if parts is None else {"http": "80", "https": "443"}[parts[1]]
    if parts is None or parts[3] == usual or int(parts[3] or 0) > 65_535:
        raise ValueError(
            "expected exact origins as browsers write them, such as https://app.example.com: in lower case, without "
            "the usual port, a path, a user or a *"
        )
    return value


Owner = Annotated[str, Field(pattern=OWNER_PATTERN)]
Origin = Annotated[str, AfterValidator(_check_origin)]
ProviderName = Annotated[str, Field(pattern=PROVIDER_PATTERN)]


class Settings(BaseSettings):
    """What the operator decides. Names in the environment are the aliases; seconds end in `_s`."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, extra="ignore", populate_by_name=True, frozen=True, env_ignore_empty=True
    )

    redis_url: Annotated[str, AfterValidator(_check_redis_url)] = Field(
        "redis://127.0.0.1:6379/0", alias="REDIS_URL", repr=False
    )
    stream_urls: Annotated[dict[str, str], NoDecode, BeforeValidator(_split_stream_urls)] = Field(
        {}, alias="REJOIN_STREAM_URLS", repr=False
    )
    """Event servers by name: where the logs of new jobs are kept. None: beside their records, on `redis_url`."""
    stream_closed: Annotated[list[str], NoDecode, BeforeValidator(_split_list)] = Field(
        [], alias="REJOIN_STREAM_CLOSED"
    )
    """Those of them that take no new jobs: the ones that they have come to their ends there."""
    key_prefix: str = Field("rejoin", alias="REJOIN_KEY_PREFIX", pattern=r"^[A-Za-z0-9_.:-]{1,64}$")
    """Stands before every key in Redis, so that several deployments can share a server."""

    openai_api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY")
    openai_base_url: BaseUrl | None = Field(None, alias="OPENAI_BASE_URL")
    anthropic_api_key: SecretStr | None = Field(None, alias="ANTHROPIC_API_KEY")
    anthropic_base_url: BaseUrl | None = Field(None, alias="ANTHROPIC_BASE_URL")
    more_providers: dict[ProviderName, ProviderConfig] = Field({}, alias="REJOIN_PROVIDERS")

    api_keys: Annotated[dict[bytes, Owner], NoDecode, BeforeValidator(_split_keys)] = Field(
        {}, alias="REJOIN_API_KEYS", repr=False
    )
    auth: Literal["required", "off"] = Field("required", alias="REJOIN_AUTH")
    secret: Annotated[list[SecretStr], NoDecode, BeforeValidator(_split_list), AfterValidator(_check_secrets)] = Field(
        [], alias="REJOIN_SECRET"
    )
    """The first signs tickets, all of them are taken: that is how a secret is replaced."""
    docs: Literal["on", "off"] | None = Field(None, alias="REJOIN_DOCS")
    """Whether `/openapi.json` is served; None: where no key is needed."""

    metrics: Literal["private", "open"] = Field("private", alias="REJOIN_METRICS")
    """Who may read `/metrics`: whoever asks from a private address, not through a proxy; or anybody."""

    max_jobs: PositiveInt = Field(200, alias="REJOIN_MAX_JOBS", le=10_000)
    lease_s: PositiveFloat = Field(5, alias="REJOIN_LEASE_S", ge=0.2, le=3600)
    drain_s: float = Field(0, alias="REJOIN_DRAIN_S", ge=0, le=3600)
    """How long a worker that is told to stop lets its answers come to their ends before it hands the rest over."""
    max_attempts: PositiveInt = Field(3, alias="REJOIN_MAX_ATTEMPTS")
    retention_s: PositiveFloat = Field(3600, alias="REJOIN_RETENTION_S")
    first_token_timeout_s: PositiveFloat = Field(60, alias="REJOIN_FIRST_TOKEN_TIMEOUT_S")
    idle_timeout_s: PositiveFloat = Field(60, alias="REJOIN_IDLE_TIMEOUT_S")
    job_timeout_s: PositiveFloat = Field(600, alias="REJOIN_JOB_TIMEOUT_S")
    heartbeat_s: PositiveFloat = Field(10, alias="REJOIN_HEARTBEAT_S")

    rate_limit: PositiveInt = Field(600, alias="REJOIN_RATE_LIMIT")
    max_active_jobs: PositiveInt = Field(100, alias="REJOIN_MAX_ACTIVE_JOBS")
    max_streams: PositiveInt = Field(100, alias="REJOIN_MAX_STREAMS")
    limits: dict[str, Limit] = Field({}, alias="REJOIN_LIMITS")
    """What `provider` or `provider/model` may be asked by all workers together."""
    daily_usd: Annotated[Decimal, Field(ge=0, le=9_000, decimal_places=6)] | None = Field(
        None, alias="REJOIN_DAILY_USD"
    )
    """What an owner's calls may cost a day (UTC). Up to there, scripts compare costs without loss."""
    max_tokens: PositiveInt | None = Field(None, alias="REJOIN_MAX_TOKENS", le=1_000_000)
    max_queue: PositiveInt = Field(10_000, alias="REJOIN_MAX_QUEUE")
    max_answer_bytes: PositiveInt = Field(8_388_608, alias="REJOIN_MAX_ANSWER_BYTES", le=268_435_456)
    """What one answer may take in its log: text, thinking and tool calls as JSON, and 16 bytes an event."""
    max_body_bytes: PositiveInt = Field(1_048_576, alias="REJOIN_MAX_BODY_BYTES")
    cors_origins: Annotated[list[Origin], NoDecode, BeforeValidator(_split_list)] = Field(
        [], alias="REJOIN_CORS_ORIGINS"
    )
    default_model: Annotated[str, Field(pattern=r"^[^/\s]+/[^\s]+$")] | None = Field(None, alias="REJOIN_DEFAULT_MODEL")
    """`provider/model`: asked where a client names none; its provider, where one names only a model."""
    chat_policy: Literal["interrupt", "reject"] = Field("interrupt", alias="REJOIN_CHAT_POLICY")
    """What becomes of a chat's live answer when it is asked anew: cancelled, or the new one refused."""
    prices: str | None = Field(None, alias="REJOIN_PRICES")
    usage_retention_d: PositiveInt = Field(400, alias="REJOIN_USAGE_RETENTION_D", le=36_500)
    log_level: Annotated[Level, BeforeValidator(_lower)] = Field("info", alias="REJOIN_LOG_LEVEL")
    log_format: Annotated[Format, BeforeValidator(_lower)] | None = Field(None, alias="REJOIN_LOG_FORMAT")
    """None: text where stderr is a terminal, else JSON."""
    worker_port: int = Field(0, alias="REJOIN_WORKER_PORT", ge=0, le=65_535)

    @model_validator(mode="after")
    def _reserve_names(self) -> Self:
        taken = sorted(set(self.more_providers) & set(BUILT_IN_PROVIDERS))
        if taken:
            raise ValueError(f"REJOIN_PROVIDERS: {taken[0]!r} is built in, choose another name")
        for name, config in self.more_providers.items():
            if (misfit := config.misfit()) is not None:
                raise ValueError(f"REJOIN_PROVIDERS: {name!r} {misfit}")
        return self

    @model_validator(mode="after")
    def _close_what_there_is(self) -> Self:
        if unknown := sorted(set(self.stream_closed) - set(self.stream_urls)):
            raise ValueError(f"REJOIN_STREAM_CLOSED: there is no {unknown[0]!r} in REJOIN_STREAM_URLS")
        return self

    @model_validator(mode="after")
    def _default_is_there(self) -> Self:
        if self.default_model is not None and self.default_model.partition("/")[0] not in self.providers():
            raise ValueError("REJOIN_DEFAULT_MODEL: there is no provider of this name")
        return self

    @model_validator(mode="after")
    def _limit_what_there_is(self) -> Self:
        known = self.providers()
        for scope in self.limits:
            provider, slash, model = scope.partition("/")
            if provider not in known or (slash and not model):
                raise ValueError(f"REJOIN_LIMITS: {scope!r} is no provider and no provider/model")
        return self

    def providers(self) -> dict[str, ProviderConfig]:
        """Return every provider that a job may name."""
        openai = {"base_url": self.openai_base_url, "api_key": self.openai_api_key}
        return {
            "openai": ProviderConfig(kind="openai", **openai),
            "openai-responses": ProviderConfig(kind="openai-responses", **openai),
            "anthropic": ProviderConfig(
                kind="anthropic", base_url=self.anthropic_base_url, api_key=self.anthropic_api_key
            ),
            "demo": ProviderConfig(kind="demo", models=["tour"]),
            **self.more_providers,
        }

    def ticket_secrets(self) -> list[bytes]:
        """Return what signs stream tickets, then what else did; random per process where none is set and needed."""
        return [secret.get_secret_value().encode() for secret in self.secret] or [secrets.token_bytes(32)]

    @property
    def shows_docs(self) -> bool:
        return self.docs == "on" or (self.docs is None and self.auth == "off")


ENV_NAMES: dict[str, str] = {name: field.alias or name for name, field in Settings.model_fields.items()}


def _unknown_names(environ: Mapping[str, str | None]) -> list[str]:
    known = {*ENV_NAMES.values(), *CLIENT_NAMES}
    return sorted(name for name in environ if name.upper().startswith(OUR_PREFIX) and name.upper() not in known)


def _in_one_line(error: ValidationError) -> str:
    """Name the first setting that is wrong, without its value: it may be a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = [str(part) for part in first["loc"]]
    if not where:
        return first["msg"].removeprefix("Value error, ")
    name = ENV_NAMES.get(where[0], where[0])
    return f"{'.'.join([name, *where[1:]])}: {first['msg'].removeprefix('Value error, ')}"


def load_settings(role: Literal["api", "worker", "command"]) -> Settings:
    """Read the settings or end the process with one line that names the one that is wrong."""
    if unknown := _unknown_names({**dotenv_values(ENV_FILE), **os.environ}):
        sys.exit(f"rejoin: {unknown[0]} is not a setting")
    try:
        settings = Settings()  # pyright: ignore[reportCallIssue]  (every field has a default)
    except ValidationError as error:
        sys.exit(f"rejoin: {_in_one_line(error)}")
    except SettingsError as error:
        field = str(error).split('"')[1] if '"' in str(error) else "settings"
        sys.exit(f"rejoin: {ENV_NAMES.get(field, field)}: not valid JSON")
    if role == "api" and settings.auth == "required" and not settings.secret:
        sys.exit("rejoin: REJOIN_SECRET is required unless REJOIN_AUTH=off")
    return settings
