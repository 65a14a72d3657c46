"""`python -m api.keys`, or `rejoin keys`: make, list and revoke API keys; all processes know of a revocation at once.

python -m api.keys create --owner alice --expires 90d --models 'openai/gpt-4o-mini,anthropic/*'
python -m api.keys list --owner alice
python -m api.keys revoke key_0123456789ab
"""

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from shared import logs
from shared.clock import iso
from shared.keyring import ApiKey, Keyring, Limits, Terms
from shared.keys import Keys
from shared.redis import REDIS_FAULTS, Scripts, connect, reason
from shared.settings import Settings, key_id, load_settings

PROG: Final = "python -m api.keys"
TIMEOUT_S: Final = 5.0

_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


class Refused(Exception):
    """Why nothing was done, in one line."""


def expiry_ms(text: str, now_ms: int) -> int:
    """Return when a key ends: after `90d`, `12h` or `30m`, or with the day of a date, in UTC. Raises Refused."""
    if (span := _SPAN.fullmatch(text)) is not None:
        return now_ms + int(timedelta(**{_UNITS[span[2]]: int(span[1])}).total_seconds() * 1000)
    try:
        day = date.fromisoformat(text)
        end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        raise Refused("--expires: expected 90d, 12h, 30m or a date such as 2027-01-31") from None
    if end.timestamp() * 1000 <= now_ms:
        raise Refused("--expires: this day is over")
    return int(end.timestamp() * 1000)


async def create(keyring: Keyring, asked: argparse.Namespace) -> None:
    expires_ms = None if asked.expires is None else expiry_ms(asked.expires, await keyring.now_ms())
    limits = {name: getattr(asked, name) for name in Limits.__dataclass_fields__}
    models = [pattern.strip() for pattern in asked.models.split(",") if pattern.strip()]
    given: dict[str, Any] = {"owner": asked.owner, "name": asked.name, "limits": limits, "models": models}
    try:
        terms = Terms.model_validate({**given, "expires_ms": expires_ms, "ops": asked.ops})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = next(str(part) for part in reversed(first["loc"]) if isinstance(part, str))
        raise Refused(f"--{field.replace('_', '-')}: {first['msg']}") from None
    key, kept = await keyring.issue(terms)
    # Alone on its stream, for a script to take it.
    print(key)
    until = "does not expire" if expires_ms is None else f"expires {iso(expires_ms)}"
    print(f"{kept.id} for {terms.owner}, {until}. The key above is shown this once.", file=sys.stderr)


async def list_keys(keyring: Keyring, asked: argparse.Namespace, settings: Settings) -> None:
    now_ms = await keyring.now_ms()
    rows: list[tuple[str, ...]] = [("id", "owner", "state", "created", "expires", "limits", "models", "rights", "name")]
    rows += [(key_id(hashed), owner, "in REJOIN_API_KEYS", *[""] * 6) for hashed, owner in settings.api_keys.items()]
    rows += [_row(key, now_ms) for key in await keyring.all()]
    shown = [row for at, row in enumerate(rows) if at == 0 or asked.owner in (None, row[1])]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(key: ApiKey, now_ms: int) -> tuple[str, ...]:
    terms = key.terms
    state = "live" if key.live(now_ms) else "expired" if key.revoked_ms is None else f"revoked {iso(key.revoked_ms)}"
    limits = [f"{name}={value}" for name in Limits.__dataclass_fields__ if (value := getattr(terms.limits, name))]
    times = [iso(key.created_ms) or "", iso(terms.expires_ms) or "never"]
    rest = (",".join(limits) or "-", ",".join(terms.models) or "all", "ops" if terms.ops else "-", terms.name)
    return (key.id, terms.owner, state, *times, *rest)


async def revoke(keyring: Keyring, asked: argparse.Namespace, settings: Settings) -> None:
    if asked.id in map(key_id, settings.api_keys):
        raise Refused(f"{asked.id} is one of REJOIN_API_KEYS: take it out there and start the API processes again")
    if not await keyring.revoke(asked.id):
        raise Refused(f"there is no key {asked.id}")
    print(f"{asked.id} is revoked")


def parser(prog: str = PROG) -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog=prog, description="Make, list and revoke API keys.")
    commands = whole.add_subparsers(dest="command", required=True)
    new = commands.add_parser("create", help="make a key and show it, once")
    new.add_argument("--owner", required=True)
    new.add_argument("--name", default="", help="for your own list")
    new.add_argument("--expires", metavar="90d|12h|DATE", help="never, if not given")
    new.add_argument("--rate-limit", metavar="N", help="POSTs a minute, in place of REJOIN_RATE_LIMIT")
    new.add_argument("--max-active-jobs", metavar="N", help="in place of REJOIN_MAX_ACTIVE_JOBS")
    new.add_argument("--max-streams", metavar="N", help="in place of REJOIN_MAX_STREAMS")
    new.add_argument("--daily-usd", metavar="USD", help="what the owner may have spent in a day")
    new.add_argument("--models", default="", metavar="PATTERNS", help="provider/model or provider/*, with commas; all")
    new.add_argument("--ops", action="store_true", help="opens /ops too: what all owners' jobs do, and their cancel")
    listed = commands.add_parser("list", help="show the keys, and those that ended in the last 30 days")
    listed.add_argument("--owner")
    ended = commands.add_parser("revoke", help="end a key now, and its open streams")
    ended.add_argument("id", metavar="KEY_ID")
    return whole


async def run(asked: argparse.Namespace, settings: Settings) -> None:
    redis = connect(settings.redis_url, timeout_s=TIMEOUT_S)
    scripts = Scripts(redis)
    keyring = Keyring(redis, scripts, Keys(settings.key_prefix))
    try:
        # As this also lets a key be revoked in a full server.
        await scripts.load()
        if asked.command == "create":
            await create(keyring, asked)
        elif asked.command == "list":
            await list_keys(keyring, asked, settings)
        else:
            await revoke(keyring, asked, settings)
    except REDIS_FAULTS as fault:
        raise Refused(f"Redis cannot be used: {reason(fault)}") from None
    finally:
        await redis.close()


def main(args: Sequence[str] | None = None, prog: str = PROG) -> None:
    asked = parser(prog).parse_args(args)
    try:
        settings = load_settings("command")
        logs.configure(settings.log_level, settings.log_format)
        asyncio.run(run(asked, settings))
    except Refused as why:
        sys.exit(f"rejoin: {why}")


if __name__ == "__main__":
    main()
