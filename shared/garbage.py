"""Python's garbage collector, told what it need not look at."""

import gc
from typing import Final

YOUNG: Final = 10_000
"""Objects between two looks at the young ones. Nothing on the hot path is a cycle: Python's 700 are a look every few tokens."""


def spare_the_start() -> None:
    """Take all that a process has loaded out of the collector's sight. Call it once, when all is imported and built.

    Half a million objects of the SDKs' and pydantic's models never go away. A full collection walks through them all: up to 0.2 s in
    which a worker claims nothing, and reads and writes no token.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
