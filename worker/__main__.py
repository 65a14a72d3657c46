"""`python -m worker`: one worker process."""

# ruff: noqa: E402

import gc
import os

# Until all is loaded (`spare_the_start`): looking at it again and again is a sixth of the start.
gc.disable()

# A worker answers for itself alone, on a port of its own. (prometheus-client decides by it when it is imported.)
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

import uvloop

from shared import logs, telemetry
from shared.files import allow_many
from shared.garbage import spare_the_start
from shared.settings import load_settings
from worker.dispatch import serve
from worker.workshop import Workshop


def main() -> None:
    settings = load_settings("worker")
    logs.configure(settings.log_level, settings.log_format)
    allow_many()

    async def run() -> None:
        traces = telemetry.start("worker")
        workshop = Workshop(settings, traces)
        spare_the_start()
        try:
            await serve(workshop)
        finally:
            if traces is not None:
                await traces.close()

    uvloop.run(run())


if __name__ == "__main__":
    main()
