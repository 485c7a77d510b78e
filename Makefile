# Two commands do all the set-up: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test lint types contracts suite suite-reads suite-lives proof bench screenshots clean

run: $(VENV)/.run
	@$(BIN)/ddp-assist $(ARGS)

test: $(VENV)/.dev lint types contracts suite

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch" -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[torch,dev]"
# DeepSpeed comes without wheels; without its kernels it builds in seconds. Its parser judges what we write.
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  -c constraints.txt deepspeed || echo "DeepSpeed's own parser is not asked: it does not build here" >&2
	@touch $@

lint:
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

contracts:
	PYTHONPATH=tests/typing $(BIN)/lint-imports

# What only reads runs beside what starts jobs and watches them, and gives way to it.
READS := $(addprefix tests/,fixes fuzz launch logs redaction script text test_recorded_cases.py test_wordings.py)

suite:
	$(MAKE) --jobs=2 --keep-going suite-reads suite-lives

suite-reads:
	nice -n 19 $(BIN)/python -m pytest -o cache_dir=.pytest_cache/reads $(READS) $(PYTEST)

suite-lives:
	$(BIN)/python -m pytest -o cache_dir=.pytest_cache/lives tests $(READS:%=--ignore=%) $(PYTEST)

# Every fault live, at every moment, and varied; the table is kept in docs/proof.md. Needs root.
# ARGS="-f ports -v 3" does one family, with three variations of each; see live_proof.py --help.
proof: $(VENV)/.dev
	$(BIN)/python tests/live/live_proof.py -t $(or $(TABLE),docs/proof.md) $(or $(ARGS),-v 1)

# Twice each, one sitting after the other: the spread is that of both. Then what is no comparison.
bench: $(VENV)/.dev
	for sitting in 1 2; do \
	  for part in $(or $(PART),start keys check processes sockets jobs run trials logs fleet proof waits); do \
	    echo "== $$part"; SITTING=$$sitting PYTHONPATH=tests/typing $(BIN)/python benchmarks/$$part.py || exit 1; \
	  done; \
	done
	for part in $(if $(PART),,text script growth); do \
	  echo "== $$part"; PYTHONPATH=tests/typing $(BIN)/python benchmarks/$$part.py || exit 1; \
	done
	PYTHONPATH=tests/typing $(BIN)/python benchmarks/readme.py

screenshots: $(VENV)/.dev
	PYTHONPATH=tests/typing $(BIN)/python docs/screenshots.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
