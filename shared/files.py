"""How many files, and so sockets, a process may have open."""

import resource
from contextlib import suppress
from typing import Final

MOST: Final = 1_048_576
"""Where the system sets no bound: what Linux has by default (`fs.nr_open`)."""


def allow_many() -> None:
    """Raise this process' own limit as far as it may. Call it once, at the start.

    Each stream is a socket. A login, systemd and container engines give a process 1,024 of them, and let it have
    hundreds of thousands if it asks: so old programs that use select() stay safe, of which this is none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # (macOS has a bound of its own below "infinity".)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
