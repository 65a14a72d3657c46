"""How a command ends: its exit codes, and one line on the standard error that says why."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from rejoin import calls
from rejoin.client import Client
from rejoin.errors import ClientError, Problem, Unauthorized, Unreachable
from rejoin.patience import Patience

FAILED: Final = 1
INTERRUPTED: Final = 130
NOBODY_READS: Final = 141
"""As a shell tells SIGINT and SIGPIPE."""

HELLO_S: Final = 3.0


def say(line: str) -> None:
    """Say something that is no part of the answer."""
    print(f"rejoin: {line}", file=sys.stderr, flush=True)


def end(code: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter would complain of it once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(code)


@contextmanager
def client_of(url: str | None, key: str | None) -> Iterator[Client]:
    """Give a client; what it raises becomes one line and an exit code."""
    # Whatever the locale: what is piped is UTF-8, and a character that cannot be shown is no reason to stop.
    encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
    sys.stdout.reconfigure(encoding=encoding, errors="replace")  # type: ignore[union-attr]
    try:
        with Client(url, key) as client:
            # A wrong address is to be told at once; a server that was there once may be away for a minute.
            client._ask(calls.alive(), Patience(give_up_s=HELLO_S))
            yield client
    except KeyboardInterrupt:
        end(INTERRUPTED)
    except BrokenPipeError:
        end(NOBODY_READS)
    except ClientError as error:
        say(_why(error))
        end(FAILED)
    end(0)


def _why(error: ClientError) -> str:
    match error:
        case Unreachable():
            return f"{error}. Is it running? (rejoin run; --url or REJOIN_URL says where)"
        case Unauthorized():
            return f"{error} (--key or REJOIN_API_KEY)"
        case Problem():
            return f"{error} ({error.code})"
    return str(error)
