"""Both halves on the CPU's provider: what is prepared here runs where nothing but eptx[cpu] is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.cuda.pieces import PIECES, Pieces
from tests.cuda.prepare import ROOT, prepare

CASES = ("tucka_bert48 dynamic batch fp32", "tucka_bert48 dynamic batch fp16", "llama conditioned int4")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases in two folders; the others are timed over the first, and the last over itself."""
    home = tmp_path_factory.mktemp("prepared")
    assert not prepare(home / "all", "cuda", ["small"], CASES)
    path = home / "all" / "1" / "cases.json"
    told = json.loads(path.read_text())
    assert [case["name"] for case in told["cases"]] == list(CASES)
    for case, over in zip(told["cases"], (None, CASES[0], CASES[2]), strict=True):
        case["over"] = over
    path.write_text(json.dumps(told))
    return home / "all"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with eptx[cpu] in it, and no other."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "eptx").symlink_to(ROOT / "eptx")
    for name in ("numpy", "click", "tokenizers", "onnxruntime"):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        package = Path(spec.origin).parent
        for path in (package, package.with_name(f"{name}.libs")):  # numpy's libraries
            if path.exists():
                (folder / path.name).symlink_to(path)
    return folder


def run(folder: Path, packages: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``run.py``, with one thread."""
    environment = {**os.environ, "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-S", str(folder / "1" / "run.py"), "--pairs", "2", "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, check=False)


def test_a_machine_without_pytorch_runs_it(prepared: Path, packages: Path, tmp_path: Path) -> None:
    result = tmp_path / "results.json"
    done = run(prepared, packages, "--provider", "cpu", "--json", str(result))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("cpu, graphs fused for cuda, ONNX Runtime ")
    assert lines[-1] == "3 passed, 0 failed, 0 refused, 0 not here"
    assert f"{CASES[1]} / base, plain: 1x16 " in done.stdout
    assert f"{CASES[2]}, 4 rows: " in done.stdout
    cases = json.loads(result.read_text())["cases"]
    assert 0 < cases[CASES[0]]["released"] < 2e-5 and 0 < cases[CASES[0]]["noise_floors"] < 10
    assert set(cases[CASES[0]]["nodes"]) == {"cpu"} and sum(cases[CASES[0]]["nodes"]["cpu"].values()) > 20
    assert set(cases[CASES[1]]["latency"]["plain"]) == {"1x16", "8x32"}  # it reads 64 tokens
    assert cases[CASES[2]]["decoding"]["1 row"]["tokens_per_second"] > 0


def test_one_number_is_seen(prepared: Path, packages: Path, tmp_path: Path) -> None:
    """One number of a feed-forward, with every hash as it should be then."""
    folder = Path(shutil.copytree(prepared, tmp_path / "changed"))
    told = json.loads((folder / "1" / "cases.json").read_text())
    files = told["cases"][0]["files"]
    with zipfile.ZipFile(folder / "1" / PIECES, "a") as archive:

        def put(name: str, place: int, content: bytes) -> None:
            files[name][place] = hashlib.sha256(content).hexdigest()
            archive.writestr(files[name][place], content)

        tensors = onnx.load_from_string(b"".join(map(archive.read, files["bundle/model.onnx"]))).graph.initializer
        (said,) = (
            {entry.key: int(entry.value) for entry in tensor.external_data if entry.key != "location"}
            for tensor in tensors
            if tensor.name.endswith("layer.1.intermediate.dense.weight")
        )
        pieces = files["bundle/model.onnx.data"]
        contents = [archive.read(piece) for piece in pieces]
        starts = [sum(map(len, contents[:place])) for place in range(len(contents))]
        place = starts.index(said.get("offset", 0))
        numbers = np.frombuffer(contents[place], np.float32).copy()
        numbers[100] += 0.5
        put("bundle/model.onnx.data", place, numbers.tobytes())
        contents[place] = numbers.tobytes()
        manifest = json.loads(archive.read(files["bundle/eptx.json"][0]))
        manifest["files"]["model.onnx.data"]["sha256"] = hashlib.sha256(b"".join(contents)).hexdigest()
        put("bundle/eptx.json", 0, json.dumps(manifest).encode())
    (folder / "1" / "cases.json").write_text(json.dumps(told))
    done = run(folder, packages, "--provider", "cpu", "--only", CASES[0])
    assert done.returncode == 1
    assert f"failed    {CASES[0]}: model.onnx.data: " in done.stdout
    assert "fails at first drifting module bert.encoder.layer.1.intermediate.dense: " in done.stdout
    assert done.stdout.splitlines()[-1] == "0 passed, 1 failed, 0 refused, 0 not here"


def test_logits_that_are_not_the_released_ones(prepared: Path, packages: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(prepared, tmp_path / "changed"))
    run_py = (folder / "1" / "run.py").read_text()
    assert "TOLERANCE = 2e-5" in run_py
    (folder / "1" / "run.py").write_text(run_py.replace("TOLERANCE = 2e-5", "TOLERANCE = 0.0"))
    done = run(folder, packages, "--provider", "cpu", "--only", CASES[0])
    assert done.returncode == 1
    assert "of the released code's largest logit, not 0.0" in done.stdout


def test_a_folder_that_is_not_here(prepared: Path, packages: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(prepared, tmp_path / "part"))
    with zipfile.ZipFile(folder / "1" / PIECES, "w"):
        pass
    done = run(folder, packages, "--provider", "cpu", "--only", "llama")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "0 passed, 0 failed, 0 refused, 1 not here"


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this machine has CUDA")
def test_a_machine_without_cuda_is_exit_5(prepared: Path, packages: Path) -> None:
    done = run(prepared, packages)
    assert done.returncode == 5
    assert "error: provider cuda: the installed onnxruntime" in done.stderr


def test_what_two_bundles_share_is_kept_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(300, 300)).astype(np.float32), rng.normal(size=(2, 5)).astype(np.float32)
    for name, arrays in (("a", [shared, own]), ("b", [own * 2, shared])):
        (tmp_path / name).mkdir()
        tensors = [onnx.numpy_helper.from_array(array, f"t{i}") for i, array in enumerate(arrays)]
        graph = onnx.helper.make_graph([], name, [], [], tensors)
        onnx.save(
            onnx.helper.make_model(graph),
            tmp_path / name / "model.onnx",
            save_as_external_data=True,
            location="model.onnx.data",
            size_threshold=0,
        )
    pieces = Pieces(tmp_path / "out", 10_000_000)
    files: dict[str, Any] = {name: pieces.add(tmp_path / name) for name in ("a", "b")}
    pieces.close()
    assert set(files["a"]["model.onnx.data"]) & set(files["b"]["model.onnx.data"])
    with zipfile.ZipFile(tmp_path / "out" / "1" / PIECES) as archive:
        assert sum(info.file_size for info in archive.infolist()) < 1.2 * shared.nbytes
        for name in ("a", "b"):
            joined = b"".join(archive.read(piece) for piece in files[name]["model.onnx.data"])
            assert joined == (tmp_path / name / "model.onnx.data").read_bytes()
