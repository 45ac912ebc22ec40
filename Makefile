# make setup   a virtual environment with everything (the other targets do it when needed)
# make test    the tests                 make lint   style and types
# make demo    one adapter, three modes  make bench  speed, size and memory
# make build   the wheel

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: setup test lint format demo bench build clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cpu,export,dev]'
	touch $@

test: $(READY)
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(READY) stage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(READY)
	$(BIN)/python examples/glue_minilm/demo.py $(ARGS)

bench: $(READY)
	$(BIN)/python -m tests.bench $(ARGS)

build: $(READY)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The package as it is installed, for mypy: exporter/, runtime/ and calibration/ are subpackages of eptx.
.PHONY: stage
stage:
	rm -rf build/stage
	mkdir -p build/stage/eptx
	cd build/stage/eptx && ln -s ../../../eptx/* ../../../exporter ../../../runtime ../../../calibration .
