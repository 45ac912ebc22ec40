"""The C++ test programs, and programs that are built against an installed libeptx."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from eptx import Session
from eptx.bundle import Bundle, BundleWriter, Task, TensorSpec
from tests.runtime.cpp.library import BUILD, load, path, program
from tests.runtime.cpp.test_generate import BundleOf, bundle_of  # noqa: F401
from tests.support.tiny_bundle import TASKS, tiny_manifest, write_tiny

#: An embedding: what a user writes.
CONSUMER = """
#include <cstdio>
#include <vector>
#include <eptx.hpp>

int main(int, char** argv) {
  eptx::Environment environment;
  eptx::Session session(environment, argv[1]);
  const std::vector<int64_t> ids = {2, 5, 7, 3};
  const eptx::Result result = session.Run({{"input_ids", ids, {1, 4}}}, {"sst2"});
  for (float logit : result.Logits(0)) std::printf("%.4f\\n", logit);
}
"""
#: What logits mean, row by row: the task's problem type, its labels, and every label's probability.
MEANINGS = """
#include <cstdio>
#include <string>
#include <vector>
#include <eptx.hpp>

int main(int count, char** argv) {
  eptx::Environment environment;
  eptx::Session session(environment, argv[1]);
  const std::vector<int64_t> ids = {2, 5, 7, 3, 2, 6, 8, 3, 2, 9, 4, 3, 2, 5, 4, 3};
  const std::vector<std::string> tasks(argv + 2, argv + count);
  const eptx::Result result = session.Run({{"input_ids", ids, {4, 4}}}, tasks);
  for (size_t row = 0; row < tasks.size(); ++row) {
    std::printf("%d |", result.Task(row)->problem_type);
    for (size_t label : result.Labels(row)) std::printf(" %zu", label);
    std::printf(" |");
    for (double likely : result.Probabilities(row)) std::printf(" %.6f", likely);
    std::printf("\\n");
  }
}
"""
C_CONSUMER = """
#include <stdio.h>
#include <eptx.h>

int main(void) {
  eptx_error* error = NULL;
  eptx_environment* environment = NULL;
  eptx_session* session = NULL;
  if (eptx_environment_create(0, 0, &environment, &error) != EPTX_OK) return 1;
  eptx_status status = eptx_session_open(environment, "/nowhere", NULL, &session, &error);
  puts(eptx_error_message(error));
  eptx_error_free(error);
  eptx_environment_free(environment);
  return status == EPTX_BAD_INPUT && session == NULL ? 0 : 1;
}
"""
CMAKE = """
cmake_minimum_required(VERSION 3.20)
project(consumer LANGUAGES CXX)
find_package(eptx REQUIRED)
add_executable(consumer consumer.cc)
target_link_libraries(consumer PRIVATE eptx::eptx)
"""


def _run(*command: str | Path, **more: str) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, env={**os.environ, **more})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("bundles") / "bundle").path


def test_many_threads_and_moves(tiny: Path) -> None:
    """Also under sanitizers: see runtime/cpp/CMakeLists.txt (for "thread" with TSAN_OPTIONS=suppressions=tsan.supp)."""
    assert "10000 requests from 16 threads" in _run(program("eptx_stress"), tiny, "10000")


def test_generation_from_many_threads(tiny: Path, bundle_of: BundleOf) -> None:  # noqa: F811
    assert "the same bits as from one" in _run(program("eptx_stress"), tiny, "10", bundle_of("conditioned").path)


def test_threads_that_end_in_the_library(bundle_of: BundleOf) -> None:  # noqa: F811
    assert "63 threads ended in the library" in _run(program("eptx_ends"), bundle_of("conditioned").path, "task0")


@pytest.mark.parametrize("seed", ["1", "2"])
def test_damaged_bytes(tiny: Path, seed: str) -> None:
    assert "20000 cases" in _run(program("eptx_fuzz"), tiny, "20000", seed)


def test_only_the_interface_is_visible() -> None:
    load()
    names = {line.split()[-1] for line in _run("nm", "-D", "--defined-only", str(path())).splitlines()}
    assert len(names) > 20
    assert [name for name in names if not name.startswith("eptx_")] == []


def test_any_onnx_runtime_serves() -> None:
    """Linked to OrtGetApiBase of one release (``@VERS_1.31.1``), it would load with no other."""
    load()
    names = _run("nm", "-D", "--undefined-only", str(path())).split()
    assert [name for name in names if name.startswith("Ort")] == ["OrtGetApiBase"]


def test_nothing_is_mapped() -> None:
    """Reading a mapped model that somebody makes shorter would end the process (SIGBUS)."""
    load()
    names = _run("nm", "-D", "--undefined-only", str(path())).split()
    assert [name for name in names if name.startswith("mmap")] == []


def write_tokens(folder: Path) -> Bundle:
    """A bundle whose every token has logits, as many as the larger of its tasks has labels."""
    kind = "single_label_classification"
    tasks = (Task("ner", 0, 3, ("O", "B-X", "I-X"), kind), Task("pos", 1, 2, ("O", "B-X"), kind))
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        tokens (int64[batch, length] input_ids, int64[batch] task_id) => (float[batch, length, 3] logits)
        <float[2, 12, 3] heads>
        {
          last = Constant <value = int64[1] {2}> ()
          row = Gather (heads, task_id)
          index = Unsqueeze (input_ids, last)
          shape = Constant <value = int64[3] {1, 1, 3}> ()
          wide = Expand (index, shape)
          logits = GatherElements <axis = 1> (row, wide)
        }
    """)
    del model.graph.initializer[:]
    heads = np.random.default_rng(3).normal(size=(2, 12, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(heads, "heads"))
    with BundleWriter(folder) as writer:
        onnx.save(model, writer.folder / "model.onnx")
        inputs = (TensorSpec("input_ids", "int64", ("batch", "length")), TensorSpec("task_id", "int64", ("batch",)))
        outputs = (TensorSpec("logits", "float32", ("batch", "length", 3)),)
        fields = {"inputs": inputs, "outputs": outputs, "operators": None, "modules": {}}
        return writer.finish(tiny_manifest(tasks=tasks, **fields))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    load()
    if shutil.which("cmake") is None or shutil.which("pkg-config") is None:
        pytest.skip("cmake and pkg-config are needed to build a program against libeptx")
    if "EPTX_LIBRARY" in os.environ:
        pytest.skip("EPTX_LIBRARY names a library, not a build to install")
    prefix = tmp_path_factory.mktemp("installed") / "usr"
    _run("cmake", "--install", BUILD, "--prefix", prefix)
    return prefix.rename(prefix.parent / "moved")  # an installed tree can be moved


def test_headers(installed: Path) -> None:
    assert sorted(file.name for file in (installed / "include").iterdir()) == ["eptx.h", "eptx.hpp"]


def test_with_pkg_config(installed: Path, tiny: Path, tmp_path: Path) -> None:
    folder = next(installed.rglob("eptx.pc")).parent
    flags = _run("pkg-config", "--cflags", "--libs", "eptx", PKG_CONFIG_PATH=str(folder)).split()
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    (tmp_path / "consumer.cc").write_text(CONSUMER)
    (tmp_path / "consumer.c").write_text(C_CONSUMER)
    _run("c++", "-std=c++17", *strict, tmp_path / "consumer.cc", "-o", tmp_path / "cc", *flags)
    _run("cc", "-std=c99", *strict, tmp_path / "consumer.c", "-o", tmp_path / "c", *flags)
    library = str(folder.parent)
    assert len(_run(tmp_path / "cc", tiny, LD_LIBRARY_PATH=library).split()) == 2
    assert _run(tmp_path / "c", LD_LIBRARY_PATH=library) == "/nowhere: no such bundle\n"


def test_with_cmake(installed: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "consumer.cc").write_text(CONSUMER)
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    _run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed}")
    _run("cmake", "--build", tmp_path / "build")
    assert len(_run(tmp_path / "build" / "consumer", tiny).split()) == 2


def test_what_logits_mean_is_pythons(tmp_path: Path) -> None:
    problems = ("single_label_classification", "multi_label_classification", "regression", None)
    tasks = tuple(replace(task, problem_type=problem) for task, problem in zip(TASKS, problems, strict=True))
    bundle = write_tiny(tmp_path / "bundle", tasks=tasks)
    compiler = shutil.which("c++")
    library = path()
    if compiler is None or library is None:
        pytest.skip("libeptx is not built, or there is no C++ compiler")
    (tmp_path / "meanings.cc").write_text(MEANINGS)
    include = Path(__file__).parents[3] / "runtime" / "cpp" / "include"
    here = ["-I", include, "-o", tmp_path / "meanings", library, f"-Wl,-rpath,{library.parent}"]
    _run(compiler, "-std=c++17", tmp_path / "meanings.cc", *here)
    rows = [[2, 5, 7, 3], [2, 6, 8, 3], [2, 9, 4, 3], [2, 5, 4, 3]]
    names = ["sst2", "mnli", "stsb", "base"]
    answers = Session(bundle).run({"input_ids": rows}, names)
    logits = answers.logits
    softmax, sigmoid = np.exp(logits[0]) / np.exp(logits[0]).sum(), 1 / (1 + np.exp(-logits[1]))
    found = [
        [part.split() for part in line.split("|")]
        for line in _run(tmp_path / "meanings", bundle.path, *names).splitlines()
    ]
    assert [row[0] for row in found] == [["2"], ["3"], ["1"], ["0"]]
    assert [row[1] for row in found[:2]] == [[str(softmax.argmax())], [str(i) for i in range(3) if sigmoid[i] > 0.5]]
    assert [row[1:] for row in found[2:]] == [[[], []]] * 2
    np.testing.assert_allclose([float(value) for value in found[0][2]], softmax, atol=1e-5)
    np.testing.assert_allclose([float(value) for value in found[1][2]], sigmoid, atol=1e-5)

    tokens = write_tokens(tmp_path / "tokens")
    labelled = Session(tokens).run({"input_ids": rows}, ["ner", "pos", "ner", "pos"])
    said = _run(tmp_path / "meanings", tokens.path, "ner", "pos", "ner", "pos").splitlines()
    for line, labels, likely in zip(said, labelled.labels, labelled.probabilities, strict=True):
        _, found_labels, found_likely = (part.split() for part in line.split("|"))
        assert [["O", "B-X", "I-X"][int(label)] for label in found_labels] == labels
        np.testing.assert_allclose([float(value) for value in found_likely], likely.ravel(), atol=1e-5)
