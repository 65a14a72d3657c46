"""Programs of others from npm, for tests: what a folder's package-lock.json names, and a Node.js to run it with."""

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import playwright

OUR_BIN: Final = str(Path(sys.executable).parent)
PLAYWRIGHT_NODE: Final = str(Path(playwright.__file__).parent / "driver" / "node")

INSTALL_S: Final = 50


class NotInstalled(Exception):
    """A package is not there, and cannot be installed."""


def find_node(oldest: tuple[int, ...]) -> str | None:
    """Return a Node.js that is new enough: the machine's, that of .venv, or the one which Playwright brings along."""
    for path in (shutil.which("node"), shutil.which("node", path=OUR_BIN), shutil.which(PLAYWRIGHT_NODE)):
        if path is not None and _version(path) >= oldest:
            return path
    return None


def _version(node: str) -> tuple[int, ...]:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    return tuple(int(part) for part in said.removeprefix("v").split(".")[:2] if part.isdigit())


def install(folder: Path) -> None:
    """Install what a folder's package-lock.json names, unless it is there; several test processes may ask at once.

    Raises NotInstalled without npm, RuntimeError with npm's own words when npm fails.
    """
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_installed(folder):
            return
        npm = shutil.which("npm") or shutil.which("npm", path=OUR_BIN)
        if npm is None:
            raise NotInstalled(f"the packages of {folder.name} are not installed, and there is no npm to install them")
        run = subprocess.run(
            [npm, "ci", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S, check=False,
        )  # fmt: skip
        if run.returncode:
            raise RuntimeError(f"npm ci failed:\n{run.stderr}")


def _is_installed(folder: Path) -> bool:
    def hashes(lock: Path) -> dict[str, str]:
        packages = json.loads(lock.read_text())["packages"]
        return {name: package["integrity"] for name, package in packages.items() if name}

    # Written by npm last, so a broken installation does not have it.
    installed = folder / "node_modules" / ".package-lock.json"
    return installed.exists() and hashes(installed) == hashes(folder / "package-lock.json")
