# Everything a person or CI types. Each target sets up the virtual environment first, once.
#   make retrain                        the whole chain: data, training, evaluation, registry, tags
#   make retrain ARGS="--plan"          what would run, and why
#   make test                           all tests (TESTS=tests/unit for a part)
#   make soak                           the same with hundreds of kills and random cases: hours
#   make ui                             MLflow's and Prefect's pages
#   make stack                          PostgreSQL, S3, MLflow, Prefect and workers on this machine; make stack-down
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# An environment holds the path of its checkout: one that came along when that was moved or copied is made anew.
MOVED := $(shell test -s $(READY) && test "$$(cat $(READY))" != "$$(pwd -P)" && echo --clear)
ARGS ?=
TESTS ?= tests
WORKERS ?= 3

export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := true
export GX_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_DISABLE_TELEMETRY := 1
export HF_HUB_OFFLINE := 1
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help retrain test soak ui stack stack-down stack-secrets stack-origin bench lint format clean
help:
	@sed -n 's/^#   //p' Makefile

retrain: $(READY)  ## the whole chain; ARGS are passed on
	@$(BIN)/python -m flows.cli retrain $(ARGS)

test: $(READY)  ## unit, integration and end-to-end tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TESTS) -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not soak" $(ARGS)

soak: $(READY)  ## tests that repeat much, as killing promotions at every boundary
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TESTS) -n $(WORKERS) --dist loadfile -m soak $(ARGS)

ui: $(READY)  ## MLflow's and Prefect's pages on localhost
	@$(BIN)/python -m flows.cli ui $(ARGS)

stack: $(READY)  ## the services of docker-compose.yml as processes of this machine
	@$(BIN)/python -m flows.cli stack up $(ARGS)

stack-down: $(READY)  ## ends them; what they hold stays
	@$(BIN)/python -m flows.cli stack down

stack-secrets:  ## random passwords for the stack in .secrets/; needs nothing installed
	@$(PYTHON) -m infra.stack.secrets $(ARGS)

stack-origin:  ## a bare copy of this repository, which containers clone and push to; needs only git
	@test -d .remint/origin.git || git clone --quiet --bare . .remint/origin.git
	@echo 'git remote add origin "$(CURDIR)/.remint/origin.git"   # then push there what workers shall run'

bench: $(READY)  ## speed, as ratios within one run
	@$(BIN)/python tests/bench/run.py $(ARGS)

lint: $(READY)  ## style, types, import direction
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: $(READY)
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .

clean:  ## remove what can be made again; keeps .remint (runs, registry) and the DVC cache
	rm -rf artifacts .pytest_cache .mypy_cache .ruff_cache $(VENV)

ifneq ($(MOVED),)
.PHONY: $(READY)
endif
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	    f"Python 3.11 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}; try make PYTHON=python3.11")'
	@echo "Setting up $(VENV) with $(PYTHON): once, about two minutes and 2 GB"
	@$(PYTHON) -m venv $(MOVED) $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@pwd -P > $(READY)
	@echo "Ready."
