.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo
OUT ?= gpu-out
BIN := $(VENV)/bin
# Tests of small models gain nothing from more threads than workers.
WORKERS ?= 2
# Compiled modules are kept, whatever the environment says: tests start many processes.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help install demo test test-quick fuzz lint format bench parity gpu screenshots clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,test,lint]'
	@touch $@

install: $(VENV)/.demo ## Create .venv and install the exporter with its demo

demo: $(VENV)/.demo ## Do the whole job on bundled photographs with a real model, offline
	$(BIN)/exporter demo --out $(RUN)

test: $(VENV)/.test ## Run every test (real TensorBoard, real browser, W&B log read back)
	EXPORTER_FUZZ_EXAMPLES=2500 $(PYTEST) -n $(WORKERS) --dist worksteal

test-quick: $(VENV)/.test ## Run the quick subset, under two minutes
	$(PYTEST) -n $(WORKERS) --dist worksteal -m 'not slow and not browser'

fuzz: $(VENV)/.test ## Try the readers of runs, lists and pictures on other random bytes, about five minutes
	EXPORTER_FUZZ_OTHERS=1 EXPORTER_FUZZ_EXAMPLES=2500 $(PYTEST) tests/hostile/test_readers.py

lint: $(VENV)/.test ## Check style, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test ## Measure the export against its floor (prints JSON)
	@$(BIN)/python -m benchmarks.export --json

parity: $(VENV)/.test ## Compare every map with its paper's formula (prints JSON)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.parity --json

gpu: ## Run the CUDA tests and measure on a card, with this machine's own Python (JSON to OUT)
	$(PYTHON) -m pytest -m gpu -p no:cacheprovider $$(grep -rl 'mark\.gpu' tests)
	$(PYTHON) -m benchmarks.gpu --out $(OUT) $(if $(DEVICE),--device $(DEVICE))

screenshots: $(VENV)/.test ## Draw the reports: the demo's for docs/images, others into runs/screenshots
	$(BIN)/python -m benchmarks.screenshots

clean: ## Remove what was built (not the runs)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
