# Two commands do all the set-up: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test lint types contracts suite proof bench clean

run: $(VENV)/.run
	@$(BIN)/ddp-assist $(ARGS)

test: $(VENV)/.dev lint types contracts suite

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch" -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[torch,dev]"
	@touch $@

lint:
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

contracts:
	PYTHONPATH=tests/typing $(BIN)/lint-imports

suite:
	$(BIN)/python -m pytest $(PYTEST)

proof: $(VENV)/.dev
	$(BIN)/python -m pytest tests/live --proof $(PYTEST)

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
