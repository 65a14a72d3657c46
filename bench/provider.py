"""The scripted provider of the benchmarks: the model's name says what it sends."""

import argparse
import asyncio
import re
import signal
from collections.abc import Sequence

import uvloop

from tests.provider import Begin, Delay, ScriptedProvider, Silence, Stamps, Step
from tests.provider.calls import Call

_MODEL = re.compile(r"n(\d+)-p([\d.]+)(?:-t([\d.]+))?")


def model(tokens: int, pace_ms: float = 0, ttft_ms: float = 0) -> str:
    """Name the model that sends so many tokens, `pace_ms` apart, the first after `ttft_ms`; each is a time stamp."""
    return f"n{tokens}-p{pace_ms:g}-t{ttft_ms:g}"


SILENT = "silent"
"""The model that answers and never says a word."""


def script(call: Call) -> Sequence[Step]:
    """Return what a model's name asks for."""
    if call.model == SILENT:
        return [Begin(), Silence()]
    found = _MODEL.fullmatch(call.model)
    if found is None:
        raise ValueError(f"no such model: {call.model}")
    tokens, pace_ms, ttft_ms = int(found[1]), float(found[2]), float(found[3] or 0)
    words = Stamps(tokens, pace_ms / 1000)
    return [Delay(ttft_ms / 1000), words] if ttft_ms else [words]


async def serve(port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ScriptedProvider(port=port) as provider:
        provider.improvise("*", script)
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.provider")
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
