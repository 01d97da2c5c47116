# `make quickstart` and `make test` do all their own set-up; python3 (3.11 or later) and make are enough.
# Another interpreter: `make test PYTHON=python3.12`. Another environment: `make test VENV=.venv-312`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

.PHONY: help quickstart test fast lint format clean
.DELETE_ON_ERROR:

help:
	@echo "make quickstart  train a score network on digits, sample it, open quickstart/ (a few minutes)"
	@echo "make test        linters, types and the whole test suite"
	@echo "make fast        the quick tests only"
	@echo "make lint        linters and types only"
	@echo "make format      rewrite the sources as ruff would have them"
	@echo "make clean       remove the environment and every cache; runs stay"

quickstart: $(VENV)/.installed
	$(BIN)/python -m experiments.quickstart --workdir quickstart

test: lint
	$(BIN)/python -m pytest -m "slow or not slow" -n 2 --dist loadfile

fast: $(VENV)/.installed-test
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# It is made anew when $(PYTHON) is of another version; an environment that was not made here is only added to.
$(VENV)/.python-$(VERSION):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "sdelab needs Python 3.11 or later; '$(PYTHON)' is '$(VERSION)' (empty: not found). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv (or python$(VERSION)-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(if $(wildcard $(VENV)/.python-*),--clear) $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.python-$(VERSION)
	@echo "Installing sdelab into $(VENV) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(VENV)/.python-$(VERSION)
	@echo "Installing sdelab with its test and development tools into $(VENV) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
