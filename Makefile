# DiDGen. `make demo` and `make test` set everything up by themselves, in .venv, and can be run
# again at no cost. They need Python 3.11 or newer, make, bash and a C compiler.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
# TORCH=cpu installs PyTorch's build without CUDA: some 200 MB in place of several GB.
TORCH ?= default
PIP_EXTRA ?=
PYTEST_ARGS ?=
# More of CMake's flags for `make llama`, such as -DGGML_CUDA=on.
LLAMA_CMAKE ?=
ifeq ($(TORCH),cpu)
PIP_EXTRA += --extra-index-url https://download.pytorch.org/whl/cpu
endif

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# Small tensors gain nothing from threads, and parallel tests would fight over the cores.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: help setup demo llama test test-all lint format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## the virtual environment alone

demo: $(READY) ## the whole run on built-in phantoms: at most 15 minutes on two cores
	@echo "Running the demo (config/config.yaml) into results/demo"
	@$(BIN)/snakemake --cores all --no-hooks
	@$(BIN)/python workflow/outcome.py results/demo

# PyPI has its source alone. envs/llama.cmake leaves out what is not needed.
llama: $(READY) ## llama-cpp-python, compiled in some minutes: the tests of local Llama models run then
	@echo "Compiling llama-cpp-python (once)"
	@CMAKE_ARGS="-DCMAKE_PROJECT_llama_cpp_INCLUDE=$(CURDIR)/envs/llama.cmake $(LLAMA_CMAKE)" \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'llama-cpp-python[server]'

test: $(READY) ## the tests, without the slow ones
	@$(TEST)

test-all: $(READY) ## the tests with the slow ones, a small whole run among them
	@$(TEST) -m ""

lint: $(READY) ## style of Python and workflow, and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow rules
	$(BIN)/mypy
	$(BIN)/snakemake --lint

format: $(READY) ## bring style into order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt workflow rules

clean: ## remove the environment and caches; results stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .snakemake didgen.egg-info

# pip's own output is long; of it only what is being fetched and installed is shown.
$(READY): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or newer, or name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"$(PYTHON) is Python {v.major}.{v.minor}; 3.11 or newer is needed. Name one with make PYTHON=...")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv"; exit 1; }; }
	@echo "Installing the packages of constraints.txt into $(VENV) (once; minutes, several GB with CUDA)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(PIP_EXTRA) \
	    -c constraints.txt -e '.[dev,slurm]' \
	    | sed -un -e 's/^Collecting \([^ ]*\).*/  \1/p' -e '/^ *Downloading .*([0-9.]* [MG]B)/p' \
	        -e 's/^Installing collected packages:.*/  unpacking/p'
	@touch $@
