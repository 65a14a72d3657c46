"""The Valkey of a `make run` on this machine, for commands that nobody has told of another one."""

import os

from dotenv import dotenv_values

from deploy.run import SOCKET, answers, kept_secret


def use_running() -> None:
    """Take on what `make run` gives its processes, where it runs and no `REDIS_URL` says otherwise."""
    configured = {name.upper() for name, value in {**dotenv_values(".env"), **os.environ}.items() if value}
    if "REDIS_URL" in configured or not SOCKET.exists() or not answers(str(SOCKET), b"PING\r\n", b"+PONG"):
        return
    os.environ["REDIS_URL"] = f"unix://{SOCKET}"
    if "REJOIN_AUTH" not in configured:
        os.environ["REJOIN_AUTH"] = "off"
    if "REJOIN_SECRET" not in configured:
        os.environ["REJOIN_SECRET"] = kept_secret()
