# One command a wish, the same for people, hooks and CI. Needs Python 3.11 or later, make and a shell.

# The first Python that is new enough and can make a virtual environment; `make PYTHON=… install` overrides.
CAN_VENV := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(CAN_VENV)' 2>/dev/null && echo $$p && break; done)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMMAND := $(BIN)/rejoin
# What tests run that comes from npm: a mock of both APIs that nobody here wrote, the AI SDK, and axe.
NPM := tests/aimock tests/faces/ai_sdk tests/page
NPM_INSTALLED := $(NPM:%=%/node_modules/.package-lock.json)

# Extra arguments for run and test: make test ARGS="-k relay -x"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install run test bench soak lint format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

install: $(STAMP) $(COMMAND) ## Set up .venv from requirements.txt

# The stamp is newer than the lock only after a whole install, so a broken one is repeated and a second one is free.
$(STAMP): requirements.txt
	@if ! $(BIN)/python -c '$(CAN_VENV)' 2>/dev/null; then \
		if [ -z "$(PYTHON)" ]; then \
			echo "No Python 3.11 or later with venv found (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; fi; \
		echo "Creating $(VENV) with $(PYTHON)"; \
		"$(PYTHON)" -m venv --clear $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

# `import rejoin` by .venv/bin/python, and .venv/bin/rejoin, from any folder; -P keeps that folder's own modules out of it.
$(COMMAND): $(STAMP)
	@echo ../../../.. > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rejoin-checkout.pth"
	@printf '#!/bin/sh\nexec "%s" -P -m rejoin "$$@"\n' "$(realpath $(BIN))/python" > $@
	@chmod +x $@

run: install ## Run everything on http://127.0.0.1:8000 (Valkey, API, worker)
	@exec $(BIN)/python deploy/run.py $(ARGS)

test: install $(NPM_INSTALLED) ## Run every test against a real Valkey
	$(BIN)/python -m tests $(ARGS)

# npm writes this file last, so a broken installation is repeated; without npm the tests that need it are skipped, and say so.
%/node_modules/.package-lock.json: %/package-lock.json
	@if command -v npm >/dev/null; then \
		npm ci --prefix $* --no-audit --no-fund --ignore-scripts --loglevel=error >/dev/null && touch $@; \
	else echo "no npm: the tests that need $* will be skipped" >&2; fi

# Its own packages (plots, progress bars) come into .venv with its first run.
BENCH_STAMP := $(VENV)/.bench-installed
$(BENCH_STAMP): bench/requirements.txt $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bench/requirements.txt
	@touch $@

bench: install $(BENCH_STAMP) ## Measure beside direct streaming, write bench/results (ARGS="cost lag": only these)
	$(BIN)/python -m bench $(ARGS)

SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
SECONDS_LONG ?= 600
SERVERS ?= 0
soak: install ## Minutes of random faults, judged by the oracle (SEED=…, SECONDS_LONG=600, SERVERS=2: event servers)
	$(BIN)/python -m tests.soak --seed $(SEED) --seconds $(SECONDS_LONG) --servers $(SERVERS)

lint: install ## Check style, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Put the code into its shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# uv resolves for every platform at once, which pip cannot; it lives only as long as this recipe. Pins that still fit are
# kept: `make lock UPGRADE=1` takes the newest of everything.
lock: ## Renew requirements.txt from pyproject.toml (UPGRADE=1: newest versions)
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	"$(PYTHON)" -m venv "$$tmp"; \
	"$$tmp/bin/pip" install --quiet --disable-pip-version-check uv; \
	"$$tmp/bin/uv" pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --quiet \
		$(if $(UPGRADE),--upgrade) --output-file requirements.txt; \
	"$$tmp/bin/uv" pip compile --group bench --constraint requirements.txt --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --quiet \
		$(if $(UPGRADE),--upgrade) --output-file bench/requirements.txt

clean: ## Remove .venv and caches; .data stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis $(NPM:%=%/node_modules)
	find . -name __pycache__ -type d -not -path './.*' -not -path './node_modules/*' -exec rm -rf {} +
