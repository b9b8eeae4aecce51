# One way to do each thing; CI calls the same. Needs only Python 3.11+ and make: uv is used when it is there, else pip.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)
export PYTHONWARNINGS ?= default

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /	/' | expand -t 12

setup: .venv/installed  ## a virtual environment with pinned versions

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "flyball needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
ifdef UV
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) .venv
	@$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
else
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
endif
	@touch $@

demo: setup  ## the main job on real data: a year of flights
	@$(BIN)/python -m examples.flights.demo

check: setup  ## format, lint, types, import contracts
	@$(BIN)/ruff format --check --quiet src tests examples benchmarks
	@$(BIN)/ruff check --quiet src tests examples benchmarks
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports --no-logo

test: check  ## every check: the above, then the whole suite
	@$(BIN)/python -m pytest -n 2 --dist loadfile -q

bench: setup  ## benchmarks: make bench NAME=serving
	@$(BIN)/python -m benchmarks $(or $(NAME),--list)

docs: setup  ## the snippets of the documentation, run
	@$(BIN)/python -m pytest -q tests/docs

clean:  ## forget what was built and learnt
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache examples/*/.flyball

.PHONY: help setup demo check test bench docs clean
