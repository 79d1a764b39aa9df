# Two commands matter: `make demo` and `make test`. Both set up a virtual environment first, if there is none.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
JOBS ?= 2
export HF_HUB_OFFLINE ?= 1

.PHONY: setup demo test test-slow check docs clean

setup: $(VENV)/.ready

# seqeval comes as source; pip before 23.1 builds it without the requirements of its requirements, but for --use-pep517
$(VENV)/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 -c constraints.txt -e '.[test]'
	@touch $@

demo: setup
	$(BIN)/headstart demo --out demo-result --overwrite

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict src

docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) demo-result site .mypy_cache .ruff_cache .pytest_cache
