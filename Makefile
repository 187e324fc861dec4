# `make help` lists the targets. Each one makes its own environment: Python, git and make are all that is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DATA ?= demo-data
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit lint format docs secrets compose-test deploy-test fuzz soak audit faults clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.run  ## Score the example images: embedded Valkey, a Celery worker with TensorFlow, SQLite
	FACESIEVE_DATA_DIR=$(DEMO_DATA) $(BIN)/producer run examples/faces
	FACESIEVE_DATA_DIR=$(DEMO_DATA) $(BIN)/db list
	FACESIEVE_DATA_DIR=$(DEMO_DATA) $(BIN)/db verify

test: $(VENV)/.dev  ## Run all tests: real Valkey, SQLite, PostgreSQL, Celery workers
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

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

docs: $(VENV)/.dev  ## Write the pages that follow from the code: commands, settings, exit codes, schema
	$(BIN)/python docs/generate.py

secrets:  ## Make the random passwords of docker-compose.yml, in deploy/compose/secrets; those that are there are kept
	sh deploy/compose/make-secrets.sh

compose-test: $(VENV)/.dev  ## Build the image and try docker-compose.yml in real containers: minutes, skips without an engine
	COMPOSE_TEST=1 $(BIN)/python -m pytest tests/compose $(ARGS)

deploy-test: $(VENV)/.dev  ## Check deploy/ with promtool, kubectl and shellcheck, as far as they are installed
	$(PIP_INSTALL) --group deploy
	$(BIN)/python -m pytest -rs tests/unit/test_deployments.py tests/unit/test_monitoring_files.py $(ARGS)

fuzz: $(VENV)/.dev  ## Break 100,000 images and many messages: each must end with a status; takes half an hour
	$(PIP_INSTALL) --group fuzz
	$(BIN)/python -m tests.fuzz.fuzz_images
	$(BIN)/python -m tests.fuzz.fuzz_images --way thumbnail --number 30000
	$(BIN)/python -m tests.fuzz.fuzz_messages --seconds 300
	FUZZED_IMAGES=5000 FUZZED_MESSAGES=2000 $(BIN)/python -m pytest --timeout 3600 tests/e2e/test_fuzzed.py
	$(BIN)/python benchmarks/reliability.py

soak: $(VENV)/.dev  ## Let 1,100,000 images pass and see what grows: memory, descriptors, threads; takes half an hour
	$(BIN)/python benchmarks/soak.py simulated
	$(BIN)/python benchmarks/soak.py real
	$(BIN)/python benchmarks/reliability.py

audit: $(VENV)/.dev  ## Compare all pinned packages with known weaknesses: needs the internet
	$(PIP_INSTALL) --group audit
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

faults: $(VENV)/.dev  ## Random faults on real processes, 200 runs: half an hour or more; writes docs/reliability.md
	rm -f $(VENV)/faults.jsonl
	-$(BIN)/python -m tests.faults.run --runs 200 --lanes 4 --network --out $(VENV)/faults.jsonl $(ARGS)
	$(BIN)/python -m tests.faults.recovery
	$(BIN)/python -m tests.faults.report $(VENV)/faults.jsonl

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
