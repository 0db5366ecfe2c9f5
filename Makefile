# Two commands do all the set-up on a machine with Python 3.11+ and make: `make compare` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= results/compare

.PHONY: help install compare test check format lint types imports docs bench adapters clean
.DEFAULT_GOAL := help

help: ## what each target does
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

# The mark is made last, so that an interrupted install is begun again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gengap needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

install: $(VENV)/.installed ## build .venv from the constraints file

compare: $(VENV)/.installed ## small against large batch on the embedded digits, ending in a report
	$(BIN)/gengap compare --out $(OUT) --resume

test: $(VENV)/.installed ## the tests (set GENGAP_DATA to include those on the real data sets)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: format lint types imports test docs ## what CI runs, in the order of cost

format: $(VENV)/.installed
	$(BIN)/ruff format --check .

lint: $(VENV)/.installed
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy

imports: $(VENV)/.installed
	$(BIN)/lint-imports

docs: $(VENV)/.installed ## README blocks run, the manual is up to date
	$(BIN)/python docs/check_blocks.py
	$(BIN)/python docs/manual.py --check

bench: $(VENV)/.installed ## the speed claims, each beside its peer
	$(BIN)/python -m benchmarks

adapters: ## the adapters against Lightning, Transformers and Accelerate, in an environment of their own
	$(PYTHON) -m venv .venv-adapters
	.venv-adapters/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e ".[lightning,transformers,accelerate]" pytest pytest-timeout
	.venv-adapters/bin/python -m pytest tests/adapters

clean: ## remove what make made
	rm -rf $(VENV) .venv-adapters results
