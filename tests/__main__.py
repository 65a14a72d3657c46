"""`make test`: all tests at once, as most of their time is waiting; then, alone, those that measure time."""

import os
import subprocess
import sys

NO_TESTS = 5
"""pytest's word for a selection that nothing is in."""

AT_ONCE = min(8, 2 * (os.cpu_count() or 1))


def main(args: list[str]) -> int:
    """Run both parts with pytest's arguments; return the code of the first that fails."""
    parts = (["-n", str(AT_ONCE), "-m", "not alone"], ["-m", "alone"])
    codes = [subprocess.call([sys.executable, "-m", "pytest", *part, *args]) for part in parts]
    return next((code for code in codes if code not in (0, NO_TESTS)), min(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
