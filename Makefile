# `make help` lists the targets. Each one makes its own environment: Python, git and make are all that is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DATA ?= demo-data
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit lint format docs clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.run  ## Score the example images: embedded Valkey, a Celery worker with TensorFlow, SQLite
	FACESIEVE_DATA_DIR=$(DEMO_DATA) $(BIN)/producer run examples/faces
	FACESIEVE_DATA_DIR=$(DEMO_DATA) $(BIN)/db list
	FACESIEVE_DATA_DIR=$(DEMO_DATA) $(BIN)/db verify

test: $(VENV)/.dev  ## Run all tests: real Valkey, SQLite, PostgreSQL, Celery workers
	$(BIN)/python -m pytest $(ARGS)

test-unit: $(VENV)/.dev  ## Run the unit tests: seconds, no TensorFlow
	$(BIN)/python -m pytest tests/unit $(ARGS)

lint: $(VENV)/.dev  ## Check style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## Mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.dev  ## Write docs/schema.md from db/schema.py
	$(BIN)/python -m db.describe > docs/schema.md

clean:  ## Remove environment, caches and demo results
	rm -rf $(VENV) $(DEMO_DATA) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "facesieve needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --upgrade pip
	$(PIP_INSTALL) -e '.[worker]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --upgrade pip
	$(PIP_INSTALL) -e '.[train,export,answers,postgres,cloud,ops,watch]' --group test --group lint
	@touch $@ $(VENV)/.run
