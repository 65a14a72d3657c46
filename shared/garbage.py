"""Python's garbage collector, told what it need not look at."""

import gc
from typing import Final

YOUNG: Final = 10_000
"""Objects between two looks at the young ones: nothing on the hot path is a cycle, and Python's 700 are soon there."""


def spare_the_start() -> None:
    """Take all that a process has loaded out of the collector's sight. Call it once, when all is imported and built.

    What the SDKs and pydantic's models are made of never goes away. A full collection walks through all of it: up to
    0.2 s in which a worker claims nothing, and reads and writes no token.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
