"""`python -m tests.provider`: the scripted provider as a process, until SIGTERM or SIGINT."""

import argparse
import asyncio
import signal

import uvloop

from tests.provider.remote import RemoteProvider
from tests.provider.steps import Delay, Stamps, Tokens


async def serve(port: int, default: list[Delay | Stamps | Tokens]) -> None:
    """Serve until told to stop; one line on stdout says where."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with RemoteProvider(port=port, default=default) as provider:
        print(f"scripted provider: {provider.openai_url} {provider.anthropic_url}", flush=True)
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.provider", description="The scripted provider as a process.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one (default)")
    parser.add_argument("--tokens", type=int, default=20, help="tokens of the default answer")
    parser.add_argument("--pace", type=float, default=0.0, metavar="S", help="seconds between them")
    parser.add_argument("--ttft", type=float, default=0.0, metavar="S", help="seconds before the first")
    parser.add_argument("--stamps", action="store_true", help="tokens are time.monotonic_ns() of their sending")
    args = parser.parse_args()
    words = (
        Stamps(args.tokens, args.pace)
        if args.stamps
        else Tokens([f"t{i} " for i in range(args.tokens)], None, args.pace)
    )
    uvloop.run(serve(args.port, [Delay(args.ttft), words] if args.ttft else [words]))


main()
