# Two commands matter: `make run` serves the bundled model, `make test` runs every test.
#
#   make run   [TORCH=cpu|cuda|system] [ARGS="--port 8001"]
#   make test  [ARGS="tests/text -q"]
#   make test-ops    the heavy tests of systemd/ and deploy/: hosts, networks and clusters, for real (root)
#   make check       what must hold before a commit: lint, format, types, layers, tests
#   make format      let ruff mend what it can
#   make docs        write the generated parts of README.md anew
#   make clean       remove the environment and what tools left
#
# deploy/venv makes the environment and explains TORCH, TORCH_INDEX, PYTHON and VENV.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
export PYTHON TORCH TORCH_INDEX VENV

.PHONY: run test test-ops check lint types layers format docs clean run-venv test-venv

run: run-venv
	@exec $(BIN)/nllbd serve $(ARGS)

test: test-venv
	@exec $(BIN)/python -m pytest $(ARGS)

test-ops: test-venv
	@exec $(BIN)/python -m pytest -m ops tests/ops -n 2 $(ARGS)

check: lint types layers test

lint: test-venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: test-venv
	$(BIN)/mypy

layers: test-venv
	$(BIN)/python -m pytest -q tests/test_layers.py

format: test-venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: run-venv
	$(BIN)/python -m nllbd.config.render README.md
	$(BIN)/python -m tests.dialects.compatibility
	$(BIN)/python -m bench.report --readme README.md

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

run-venv:
	@deploy/venv run

test-venv:
	@deploy/venv test
