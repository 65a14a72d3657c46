"""The commands of whoever runs the server. They are the server's own, found where it is installed.

The client is shipped without it, so nothing of it is imported by name.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Any


def _of_the_server(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("api", "deploy", "shared"):
            raise
        sys.exit("rejoin: this is the server's own command, and only the client is installed here")


def run(args: Sequence[str]) -> int | None:
    """What `make run` does."""
    code: int | None = _of_the_server("deploy.run").main(args, prog="rejoin run")
    return code


def keys(args: Sequence[str]) -> int | None:
    """What `python -m api.keys` does, also with the Valkey of a `rejoin run`."""
    _of_the_server("deploy.local").use_running()
    code: int | None = _of_the_server("api.keys").main(args, prog="rejoin keys")
    return code


def doctor(args: Sequence[str]) -> int | None:
    _of_the_server("deploy.local").use_running()
    code: int | None = _of_the_server("deploy.doctor").main(args, prog="rejoin doctor")
    return code
