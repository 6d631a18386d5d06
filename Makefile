# Needs git, make and Python 3.11 or newer. Uses uv when it is on PATH, pip otherwise.

PYTHON ?= python3
# Empty: take any versions within the ranges of pyproject.toml.
CONSTRAINTS ?= constraints.txt
# One torch thread in each of a few processes is faster than several threads in one.
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist worksteal
# Executes every notebook and compares the cells marked NBVAL_CHECK_OUTPUT with what is committed.
# One after the other: kernels that start at the same moment can take each other's ports.
NBVAL_ARGS ?= --nbval-lax --nbval-current-env --nbval-cell-timeout 120
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.lipref-setup

.PHONY: help setup test reproduce figures clean

help:
	@echo "make setup       create $(VENV) and install lipref into it (about 6 GB, once)"
	@echo "make reproduce   train, certify, measure and draw the comparison; options: make reproduce ARGS=\"--help\""
	@echo "make figures     draw figures/ again from the committed results"
	@echo "make test        lint, format and type check, all tests, and the notebooks"
	@echo "make clean       remove caches; keeps $(VENV), data sets and runs"

setup: $(STAMP)

# A virtual environment that was copied or moved still runs the code of its old place: install again.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@if command -v uv >/dev/null 2>&1; then \
	    uv pip install --python $(BIN)/python $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[dev,notebooks,search,attacks]'; \
	else \
	    $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip || exit 1; \
	    $(BIN)/python -m pip install $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[dev,notebooks,search,attacks]'; \
	fi
	@$(BIN)/python -c "import torch, torchvision" || { echo "error: torch and torchvision in $(VENV) do not work together: remove $(VENV) (rm -rf $(VENV)) and run make setup again" >&2; exit 1; }
	@echo "$(CURDIR)" > $(STAMP)

$(BIN)/python:
	@if [ -e $(VENV) ]; then echo "error: $(VENV) has no working Python: remove it (rm -rf $(VENV)) and run make setup again" >&2; exit 1; fi
	@"$(PYTHON)" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { echo "error: '$(PYTHON)' is not Python 3.11 or newer: install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c "import ensurepip, venv" 2>/dev/null || { echo "error: '$(PYTHON)' cannot make virtual environments: install its venv package (Debian and Ubuntu: apt install python3-venv), or name another Python: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(NBVAL_ARGS) notebooks

figures: setup
	$(BIN)/lipref figures $(ARGS)

reproduce: setup
	$(BIN)/lipref reproduce $(ARGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find lipref tests -name __pycache__ -type d -prune -exec rm -rf {} +
