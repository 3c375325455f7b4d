# `make quickstart` and `make test` do all the set-up on a new machine: a virtual environment in .venv, pinned releases.
#
#   CPU=1       take PyTorch's CPU wheels, a smaller download, for a machine without a GPU
#   PYTHON=...  the Python to make the environment with, 3.10 or newer

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PINS := .ci/constraints.txt
TORCH := $(shell sed -n 's/^torch==/torch==/p' $(PINS))
ifdef CPU
TORCH_INDEX := --index-url https://download.pytorch.org/whl/cpu
endif

.DEFAULT_GOAL := help
.PHONY: help quickstart test cover bench lint types format wheel clean

help:  ## Say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: $(VENV)/.installed  ## Fine-tune a detector on embedded data, from set-up to report (about five minutes)
	$(BIN)/detr-ft quickstart

test: $(VENV)/.dev  ## Run all tests; those of the criterion must reach its every line and branch
ifdef PYTEST
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not alone" $(PYTEST)
else
	$(MAKE) cover
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations=25 -m "not alone" $(COVERING:%=--ignore=%)
	$(BIN)/python -m pytest -m alone
endif

COVERING := tests/criterion tests/parity tests/recipes
cover: $(VENV)/.dev  ## Check that tests reach every line and branch of the criterion
	$(BIN)/python -m pytest --numprocesses 2 --quiet $(COVERING) \
		--cov=detr_ft.criterion --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100

lint: $(VENV)/.dev  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## Check types
	$(BIN)/mypy

format: $(VENV)/.dev  ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## Time the criterion beside the stock loss
	$(BIN)/python -W ignore tests/benchmarks/criterion_speed.py

wheel: $(VENV)/.dev  ## Build a wheel into dist/
	$(BIN)/python -m build --wheel

clean:  ## Remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/.python:
	@echo "making $(VENV), and installing what the command needs (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint $(PINS) --upgrade pip
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml $(PINS)
	$(PIP) install $(TORCH_INDEX) $(TORCH)
	$(PIP) install --constraint $(PINS) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install --constraint $(PINS) --group dev
	@touch $@
