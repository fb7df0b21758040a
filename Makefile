# Every target prepares what it needs: a fresh clone, Python >= 3.11, git and make are enough.

.DEFAULT_GOAL := help
SHELL := /bin/sh
.DELETE_ON_ERROR:

BIN := .venv/bin
STAMP := .venv/.installed
WORKERS ?= 2
SEEDS ?= 1000
SEED_BASE ?= 0
MONEY_PATHS := src/execkit/pipeline.py,src/execkit/orders/*,src/execkit/risk/*,src/execkit/protection/*,src/execkit/journal/*

# The newest interpreter that starts, is at least 3.11 and can create an environment.
# Name another one with: make test PYTHON=/path/to/python3.12
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	$$python -c '$(SUITABLE)' 2>/dev/null && { echo $$python; exit; }; done; echo python3)

.PHONY: help demo test lint typing unit format coverage simulate bench install clean

help: ## Show the targets.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

demo: $(STAMP) ## Run an offline trading day on the paper exchange.
	@$(BIN)/execkit demo

test: lint typing unit ## Run every gate: lint, types, tests with contracts, snippets and examples.

lint: $(STAMP) ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typing: $(STAMP) ## Check types.
	$(BIN)/mypy

unit: $(STAMP) ## Run the tests, import contracts, document snippets and examples.
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

format: $(STAMP) ## Format the code and apply safe fixes.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(STAMP) ## Report the branch coverage of the money paths.
	$(BIN)/pytest -n $(WORKERS) --cov --cov-report=
	$(BIN)/coverage report --include='$(MONEY_PATHS)'

simulate: $(STAMP) ## Run SEEDS=n simulated worlds from SEED_BASE=b and check every invariant.
	$(BIN)/python -m execkit.testing.simulate --seeds $(SEEDS) --base $(SEED_BASE)

bench: $(STAMP) ## Run the benchmarks.
	$(BIN)/python benchmarks/run.py

install: $(STAMP) ## Prepare the environment only.

$(STAMP): pyproject.toml
	@$(PYTHON) -c '$(SUITABLE)' 2>/dev/null || { \
		echo "execkit needs Python 3.11 or newer with the venv module; '$(PYTHON)' is not: $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -c '$(SUITABLE)' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean: ## Remove the environment and every generated file.
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
