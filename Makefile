# make lab   the toxicity table on two CPU cores, no downloads of models or data
# make test  everything that CI runs: format, lint, types, tests
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install lab test clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	 { echo "Python 3.11 is needed: install it, or name yours with PYTHON=/path/to/python3.11"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

lab: install
	$(BIN)/fac experiment=lab

test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -n 2 --dist loadfile

clean:
	rm -rf $(VENV) outputs build *.egg-info
