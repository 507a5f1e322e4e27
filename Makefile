# Every target sets up its own virtual environment in .venv: by uv where there is one, by python3 and pip otherwise.

PYTHON ?= python3
BIN := .venv/bin
RUNTIME := .venv/.runtime
DEVELOPMENT := .venv/.development
TOOLS := --group test --group lint --group build --group interop
UV := $(shell command -v uv 2>/dev/null)
HERE := tests/unit tests/suites tests/wire tests/hostile tests/consistency
PACKAGES := -p moorage.registry -p moorage.puller -p moorage.storage_backends -p moorage.auth

ifdef UV
CREATE := $(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
INSTALL := $(UV) pip install --quiet --python $(BIN)/python
else
# --group needs pip 25.1; Debian 12 seeds 23.0.
CREATE := $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

.DEFAULT_GOAL := help
.PHONY: help demo serve test root lint format wheel bench conformance interop s3 crash clean

help:  ## show these targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUNTIME)  ## start a registry, push an image made of real files, pull it back, compare every file
	@$(BIN)/python -m tests.demo

serve: $(RUNTIME)  ## run a registry on 127.0.0.1:5000 over ./moorage-data
	@$(BIN)/moorage serve

test: $(DEVELOPMENT)  ## everything that needs neither root nor foreign programs
	$(BIN)/python -m pytest $(HERE) -m 'not root and not interop and not crash and not bench' -n auto --dist worksteal

root: $(DEVELOPMENT)  ## the rest of `make test`: what needs root (owners, devices, mounts)
	$(BIN)/python -m pytest $(HERE) -m root

lint: $(DEVELOPMENT)  ## ruff, mypy --strict and the one-way rules between the packages
	@mkdir -p .typing && ln -sfn .. .typing/moorage
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/mypy tests
	$(BIN)/lint-imports --no-cache

format: $(DEVELOPMENT)  ## let ruff format and mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

wheel: $(DEVELOPMENT)  ## build the wheel, install it into a clean environment, import all of it there
	$(BIN)/python -m pytest tests/packaging

bench: $(DEVELOPMENT)  ## Moorage beside other registries: requests per second, latency, CPU, memory
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(BIN)/python -m tests.bench
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(BIN)/python -m tests.bench.s3

conformance: $(DEVELOPMENT)  ## the official OCI suite; its binary is CONFORMANCE=... or `conformance` on PATH
	$(BIN)/python -m pytest tests/conformance

interop: $(DEVELOPMENT)  ## foreign clients from docker to oras; the image, the unit and nginx of deploy/ (root)
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(BIN)/python -m pytest tests/interop tests/deploy

s3: $(DEVELOPMENT)  ## the store, the registry and its API over real S3 servers (minio, versitygw), workers and nginx (root)
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(BIN)/python -m pytest tests/s3 tests/wire -m s3 -n 2

crash: $(DEVELOPMENT)  ## power cuts on ext4 and xfs, kills, full disks (root)
	$(BIN)/python -m pytest tests/crash

clean:  ## remove what the targets made, but no data
	rm -rf .venv .typing .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist results *.egg-info

$(RUNTIME): pyproject.toml
	@echo 'setting up .venv (once) ...'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Moorage needs Python 3.11 or newer")'
	@$(CREATE)
	@PYTHONWARNINGS=ignore $(INSTALL) --editable .
	@touch $@

$(DEVELOPMENT): $(RUNTIME)
	@echo 'installing the development tools (once) ...'
	@$(INSTALL) $(TOOLS)
	@touch $@
