"""`python -m worker.checking`: says whether answers fit their schemas, a line for a line, until its input ends.

It trusts neither. The kernel ends it, whatever it is in the middle of, a second after a check began, also when the
worker that asked is gone; and it has memory of its own, bounded.
"""

import resource
import signal
import sys
from typing import Final

from shared.events import load
from shared.structured import fits

CHECK_S: Final = 1.0
MAX_MEMORY: Final = 1024 * 1024 * 1024


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, CHECK_S)
        text, schema = load(line)
        fit = fits(load(text.encode("utf-8", "surrogatepass")), schema)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write(b"1\n" if fit else b"0\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
