"""`python -m worker`: one worker process."""

import logging

import uvloop

from shared.garbage import spare_the_start
from shared.settings import load_settings
from worker.dispatch import serve
from worker.workshop import Workshop


def main() -> None:
    settings = load_settings("worker")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Both log each request with its whole URL, at INFO.
    for name in ("httpx2", "openai", "anthropic", "arq"):
        logging.getLogger(name).setLevel(logging.WARNING)

    async def run() -> None:
        workshop = Workshop(settings)
        spare_the_start()
        await serve(workshop)

    uvloop.run(run())


if __name__ == "__main__":
    main()
