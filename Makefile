# make demo   installs into .venv, trains on real data, shows the checkpoints it made
# make test   installs, runs all tests with the coverage gate
# make test-crash   every point at which a save can be killed, fail or lose power (half an hour)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ROOT   ?= demo_root
JOBS   ?= 2
# thousands of states each: measuring coverage would double their time
MANY   := tests/crash tests/stateful

# without compiled files each of the many short processes of the tests compiles the package again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast test-crash lint fix bench docs clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python weightslab/examples/checkpoint_v2_example.py --root $(ROOT)

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov --cov-report=term --cov-fail-under=90 $(addprefix --ignore=,$(MANY))
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(MANY)

test-fast: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m 'not slow and not crash_long'

test-crash: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist load -m crash_long tests/crash

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks

docs: $(READY)
	$(BIN)/python -m pytest tests/docs

clean:
	rm -rf demo_root .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
