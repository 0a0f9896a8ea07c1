# Everything runs from a virtual environment in .venv, made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MACHINE ?= base

.PHONY: help setup demo test regress lint verilog bench docs clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Headrace needs Python 3.11 or newer: make PYTHON=python3.11 setup")'
	@for tool in g++ make perl; do command -v $$tool >/dev/null || { echo "$$tool is missing: install it with the system package manager"; exit 1; }; done
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

setup: $(READY) ## make .venv with every pinned dependency

demo: $(READY) ## run ResNet-8 and a MobileNet on the generated hardware
	@$(BIN)/headrace demo --machine $(MACHINE)

test: $(READY) ## the quick suite (8 minutes on 2 cores, from an empty cache)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not regress'

regress: $(READY) ## the quick suite and the long random tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY) ## format, lint, types, and that generated files are current
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m headrace.isa.generate --check

verilog: $(READY) ## write build/$(MACHINE).v
	@$(BIN)/headrace verilog --machine $(MACHINE) --output build/$(MACHINE).v

bench: $(READY) ## the README's figures, as JSON in build/
	@mkdir -p build
	$(BIN)/headrace bench gemm --machine $(MACHINE) --json build/bench-gemm-$(MACHINE).json
	$(BIN)/headrace bench conv --machine $(MACHINE) --json build/bench-conv-$(MACHINE).json
	$(BIN)/headrace bench network --machine $(MACHINE) --json build/bench-network-$(MACHINE).json

docs: $(READY) ## write the generated manuals and constants again
	$(BIN)/python -m headrace.isa.generate

clean: ## remove what was built here (not the cache of compiled models)
	rm -rf build out .pytest_cache .ruff_cache .mypy_cache .hypothesis sim_build
