# Two commands set everything up: `make demo` and `make test`. Nothing else need be done before them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export BITWRIGHT_SHARED ?= ../shared
# The frameworks are run on small models: more threads only fight each other.
export OMP_NUM_THREADS ?= 1
export TF_CPP_MIN_LOG_LEVEL ?= 2
JOBS ?= 2
BOARD ?= qemu_mps2_an386
PYTEST = $(BIN)/python -m pytest -rs $(PYTEST_FLAGS)

.PHONY: help demo test lint format golden templates bench docs hw clean setup-demo setup-full

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup-demo:
	@$(PYTHON) scripts/setup.py demo

setup-full:
	@$(PYTHON) scripts/setup.py full

demo: setup-demo ## a trained network on an emulated Cortex-M4, proved and measured; no apt, no root
	$(BIN)/bitwright demo

test: setup-full ## everything set up, then the whole suite; STRICT=1 fails on any skip
	BITWRIGHT_STRICT=$(STRICT) $(PYTEST) -n $(JOBS) --dist worksteal tests hw_tests

lint: setup-full ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup-full ## what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: setup-full ## write the golden files anew, then look at the diff
	$(PYTEST) --update-golden tests
	git diff --stat -- tests/golden docs/boards.md

templates: setup-full ## every firmware template accepted alone by its own language
	$(PYTEST) tests/test_templates.py

bench: setup-full ## the measured figures of the docs
	$(BIN)/python -m benchmarks --write

docs: setup-full ## links, figures and code of README and docs
	$(PYTEST) tests/test_docs.py

hw: setup-full ## the hardware tests: make hw BOARD=nucleo_f446re PORT=/dev/ttyACM0
	$(PYTEST) hw_tests --board $(BOARD) $(if $(PORT),--port $(PORT))

clean: ## what a command here made, but not .venv
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
