"""API keys for tests, made and revoked as an operator does it: by the command."""

import contextlib
import io

from api.keys import parser, run
from tests.stack import Stack

SECRET = "a value of the tests that is long enough"


async def command(stack: Stack, *args: str) -> str:
    """Return what the command says on its standard output."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        await run(parser().parse_args(args), stack.settings())
    return out.getvalue().rstrip("\n")


async def new_key(stack: Stack, owner: str, *args: str) -> str:
    return await command(stack, "create", "--owner", owner, *args)
