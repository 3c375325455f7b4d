# `make quickstart` and `make test` do all the set-up on a new machine: a virtual environment in .venv, pinned releases.
#
# Three tiers of tests; each prints at its end what it leaves out:
#   make check     lint, types and unit tests of the lower layers: two minutes
#   make test      all tests except those marked `slow`; the criterion's reach its every line and branch
#   make test-all  also the slow tests, and the lowest and newest versions of the dependencies
#
#   CPU=1       take PyTorch's CPU wheels, a smaller download, for a machine without a GPU
#   PYTHON=...  the Python of the environment, 3.11 or newer

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
PYTEST_RUN := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
.PHONY: help quickstart check test test-all cover bench lint types format wheel lowest newest resolve clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: $(VENV)/.installed  ## Fine-tune a detector on embedded data, from set-up to report (about five minutes)
	$(BIN)/detr-ft quickstart

check: lint types  ## Check style and types, and run the unit tests (two minutes)
	$(PYTEST_RUN) --quiet -m "not slow and not alone and not browser" $(UNIT)
	@echo "left out (make test): tests marked slow, alone or browser, and $(NOT_UNIT)"

UNIT := tests/test_architecture.py tests/test_boxes.py tests/test_structures.py tests/test_vocabulary.py tests/criterion tests/data \
	tests/evaluation tests/utils
NO_TESTS := tests/benchmarks tests/fixtures tests/support tests/__pycache__
NOT_UNIT := $(sort $(filter-out $(UNIT) $(NO_TESTS),$(wildcard tests/test_*.py) $(patsubst %/,%,$(wildcard tests/*/))))
COVERING := tests/criterion tests/parity tests/recipes

test: $(VENV)/.dev  ## Run the tests, without those marked slow; PYTEST="FILE -k NAME" chooses some
ifdef PYTEST
	$(PYTEST_RUN) -m "not alone" $(PYTEST)
	@echo "left out: tests marked alone, and all but $(PYTEST)"
else
	$(MAKE) cover
	$(PYTEST_RUN) --durations=25 -m "not alone and not slow" $(COVERING:%=--ignore=%)
	$(BIN)/python -m pytest -m "alone and not slow"
	@echo "left out (make test-all): tests marked slow, and the lowest and newest versions of the dependencies"
endif

test-all: test  ## Run all tests, also the slow ones, and those of the lowest and newest versions
	$(PYTEST_RUN) --durations=25 -m "slow and not alone"
	$(BIN)/python -m pytest -m "slow and alone"
	$(MAKE) resolve lowest newest
	@echo "left out: the tests listed above as skipped (without a GPU, real data or a library), tests/benchmarks, the real Hub"

cover: $(VENV)/.dev  ## Check that tests reach every line and branch of the criterion
	$(BIN)/python -m pytest --numprocesses 2 --quiet -m "not alone and not slow" $(COVERING) \
		--cov=detr_ft.criterion --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100

lint: $(VENV)/.dev  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## Check types
	$(BIN)/mypy

format: $(VENV)/.dev  ## Fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## Time the criterion against the stock loss
	$(BIN)/python -W ignore tests/benchmarks/criterion_speed.py

wheel: $(VENV)/.dev  ## Build a wheel into dist/
	$(BIN)/python -m build --wheel

# The versions of `pyproject.toml`: its lower bounds, the newest releases, and whether they resolve on each Python.
PYTHONS := 3.11 3.12 3.13 3.14
resolve: $(VENV)/.dev  ## Check that the dependencies resolve on every supported Python
	@for version in $(PYTHONS); do \
		$(BIN)/uv pip compile --quiet --all-extras --python-version $$version pyproject.toml --output-file /dev/null || exit 1; \
		echo "Python $$version: the dependencies resolve"; \
	done

lowest: $(VENV)/.dev  ## Train, evaluate, predict, export and start the demo with the lowest versions of pyproject.toml
	$(BIN)/python tests/support/version_bounds.py lowest $(VENV)-lowest

newest: $(VENV)/.dev  ## The same with the newest releases
	$(BIN)/python tests/support/version_bounds.py newest $(VENV)-newest

clean:  ## Remove the environments and build outputs
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest build dist *.egg-info

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
