"""Which experts tasks use, recomputed from an adapter's files, and bundles without those that no task uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file

from eptx.bundle import Bundle
from eptx.calibration import export_bundle, study_experts
from eptx.cli import cli
from eptx.exporter import ExportOptions, read_adapter
from eptx.exporter.methods.ept.adapter import EptAdapter
from eptx.runtime.session import Session
from tests.exporter.validation.adapters import Tensors, changed, write_ept
from tests.malformed.scene import MODULES, WORDS, Scene, make_scene

GOLDEN = Path(__file__).parents[1] / "golden"


def study_of(folder: Path, top_k: int) -> Any:
    adapter = read_adapter([folder], top_k=top_k)
    assert isinstance(adapter, EptAdapter)
    return study_experts(adapter)


def softmax(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(values) / np.exp(values).sum(-1, keepdims=True))


@pytest.mark.parametrize("name", ["ept_bert48", "ept_llama64"])
def test_usage_is_that_of_the_files(name: str) -> None:
    """Eight tasks of eight experts, in modules whose weights have other shapes."""
    settings = json.loads((GOLDEN / name / "case.json").read_text())
    folder, top_k, sizes = GOLDEN / name / "adapter", settings["top_k"], settings["expert_kernel_sizes"]
    tensors = load_file(folder / "adapter_model.safetensors")
    study = study_of(folder, top_k).to_json()
    counts, never = np.zeros((8, 8)), set(range(8))
    gates = [key for key in tensors if key.endswith("lora_gate.0.weight")]
    assert len(study["modules"]) == len(gates)
    for gate in gates:
        module = gate.removesuffix("lora_gate.0.weight")
        embedding = tensors[f"{module}lora_task_embedding.weight"].astype(np.float64)
        p = softmax(embedding @ tensors[gate].T.astype(np.float64) + tensors[f"{module}lora_gate.0.bias"])
        chosen = np.argsort(-p, axis=1)[:, :top_k]
        weights = softmax(np.take_along_axis(p, chosen, axis=1))
        short = module.removeprefix("base_model.model.").removesuffix(".")
        for task in range(8):
            found = study["modules"][short][f"task{task}"]
            assert [expert for expert, _ in found] == chosen[task].tolist()
            np.testing.assert_allclose([weight for _, weight in found], weights[task], rtol=1e-9)
            counts[task, chosen[task]] += 1
        unused = set(range(8)) - set(chosen.ravel().tolist())
        never &= unused
        assert study["unused"].get(short, []) == sorted(unused)
    assert study["unused"]
    usage = np.array([study["usage"][f"task{task}"] for task in range(8)])
    np.testing.assert_allclose(usage, counts / counts.sum(1, keepdims=True))
    assert (study["unused_everywhere"], study["sizes"], study["experts"]) == (sorted(never), sizes, 8)


def kernels(bundle: Bundle) -> dict[str, np.ndarray]:
    """Module -> its kernels [experts, out]."""
    ending = ".lora_expert_kernels"
    stored = ir.load(bundle.model).graph.initializers.values()
    values = {v.name: v.const_value for v in stored if v.name is not None and v.name.endswith(ending)}
    return {name.removesuffix(ending): value.numpy() for name, value in values.items() if value is not None}


def size(bundle: Bundle) -> int:
    return sum(entry.size for entry in bundle.manifest.files.values())


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A base made by hand, of two linear layers."""
    return make_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def adapter(scene: Scene) -> Path:
    """Two tasks of two experts each: of eight, four to six are used by none."""
    return write_ept(scene.root / "few", MODULES, seed=2, tasks=2, sizes=(2, 2, 3, 3, 4, 4, 5, 5), rank=2)


@pytest.fixture(scope="module")
def busy(scene: Scene, adapter: Path) -> Path:
    """The same with four more tasks, for which the gates choose experts 0 and 1, 2 and 3, and so on."""

    def add_tasks(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.endswith("lora_task_embedding.weight")]:
            gate = tensors[name.replace("lora_task_embedding.weight", "lora_gate.0.weight")]
            more = np.linalg.pinv(gate) @ (5 * np.repeat(np.eye(4), 2, axis=0))
            tensors[name] = np.concatenate([tensors[name], more.T.astype(np.float32)])

    return changed(adapter, scene.root / "busy", add_tasks)


def test_experts_without_a_task_are_left_out(
    scene: Scene, adapter: Path, busy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExportOptions(mode="conditioned", top_k=2, base_onnx=scene.onnx)
    few, everything = (export_bundle(scene.base, [a], tmp_path / a.name, options) for a in (adapter, busy))
    unused = study_of(adapter, 2).unused
    assert {name: module.unused_experts for name, module in few.manifest.modules.items()} == unused
    assert not any(module.unused_experts for module in everything.manifest.modules.values())
    stored, whole = kernels(few), kernels(everything)
    for name, experts in unused.items():
        assert 4 <= len(experts) <= 6
        np.testing.assert_array_equal(stored[name], np.delete(whole[name], experts, axis=0))
    saved = sum(whole[name].nbytes - stored[name].nbytes for name in whole)
    assert size(everything) - size(few) > saved >= 0.5 * sum(array.nbytes for array in whole.values())
    ids = np.random.default_rng(0).integers(0, WORDS, (6, 9))
    for native in ("0", "1"):
        monkeypatch.setenv("EPTX_NATIVE", native)
        one, two = (
            Session(bundle.path, threads=1).run({"input_ids": ids}, ["task0", "task1", "base"] * 2)
            for bundle in (few, everything)
        )
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


def test_the_command_says_what_is_left_out(
    scene: Scene, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [scene.base, adapter, "--base-onnx", scene.onnx, "-o", tmp_path / "b"]
    arguments = ["export", "-q", *map(str, folders), "--top-k", "2", "--mode"]
    unused = study_of(adapter, 2).to_json()["unused"]
    cli.main([*arguments, "conditioned"], standalone_mode=False)
    said = capsys.readouterr().out.splitlines()
    assert said[2:] == [f"left out {sum(map(len, unused.values()))} experts that no task uses, in 2 modules"]
    cli.main([*arguments, "conditioned", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["unused_experts"] == unused
    cli.main([*arguments, "dynamic", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["unused_experts"] == {}
