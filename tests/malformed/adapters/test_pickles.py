"""``adapter_model.bin``: read with --allow-pickle alone, by a loader that runs nothing of it."""

from __future__ import annotations

import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from eptx.bundle import read_bundle
from tests.malformed.breaks import WEIGHTS
from tests.malformed.scene import Cli, Scene, leaves_nothing

PICKLE = "adapter_model.bin"
_ASK = (
    "holds adapter_model.bin, a pickle, and no adapter_model.safetensors: load the adapter with PEFT and save it again"
)
_REFUSED = (
    "adapter_model.bin: torch's weights_only loader refuses it: it is damaged, or holds more than tensors; load the"
)


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self._mark, "run")


def _pickled(scene: Scene, **more: Any) -> dict[str, torch.Tensor]:
    """Saves the adapter's tensors as older versions of PEFT did, and nothing else."""
    tensors = load_file(scene.lora / WEIGHTS)
    (scene.lora / WEIGHTS).unlink()
    torch.save({**tensors, **more}, scene.lora / PICKLE)
    return tensors


@pytest.mark.parametrize("form", ["zip", "old", "bare"])
def test_a_hostile_pickle_never_runs(scene: Scene, cli: Cli, form: str) -> None:
    mark = scene.root / "mark"
    tensors = _pickled(scene)
    content = {**tensors, "x": Hostile(mark)}
    path = scene.lora / PICKLE
    if form == "bare":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    arguments = scene.export_args("lora")
    with leaves_nothing(scene.root):
        cli.refuses(3, f"lora/{_REFUSED}", *arguments, "--allow-pickle")
        cli.refuses(3, f"{_ASK}, or, if you trust the file, read it with --allow-pickle", *arguments)
        cli.refuses(3, _REFUSED, "inspect", scene.lora, "--allow-pickle")
    assert not mark.exists()
    with suppress(Exception):
        torch.load(path, weights_only=False)
    assert mark.exists()  # it would run


def test_a_hostile_pickle_beside_safetensors_is_left_alone(scene: Scene, cli: Cli) -> None:
    mark = scene.root / "mark"
    for folder, name in ((scene.lora, PICKLE), (scene.base, "pytorch_model.bin")):
        (folder / name).write_bytes(pickle.dumps(Hostile(mark)))
    assert cli(*scene.export_args("lora"), "--allow-pickle").code == 0
    assert not mark.exists()


def test_a_base_of_pickles_is_refused_with_the_flag_too(scene: Scene, cli: Cli) -> None:
    mark = scene.root / "mark"
    (scene.base / "model.safetensors").unlink()
    (scene.base / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile(mark)))
    command = ("export", scene.base, scene.lora, "-o", scene.out / "b", "--mode", "static", "--allow-pickle", "-q")
    with leaves_nothing(scene.root):
        cli.refuses(3, "eptx never reads pickles (pytorch_model.bin)", *command)
    assert not mark.exists()


def test_damaged_pickles(scene: Scene, cli: Cli) -> None:
    _pickled(scene)
    path = scene.lora / PICKLE
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with leaves_nothing(scene.root):
            cli.refuses(3, f"lora/{_REFUSED}", *scene.export_args("lora"), "--allow-pickle")


def test_tensors_that_share_their_storage(scene: Scene, cli: Cli) -> None:
    """The bundle is that of the same numbers in safetensors, whose copies share nothing."""
    tensors = load_file(scene.lora / WEIGHTS)
    storage = torch.cat([tensor.flatten() for tensor in tensors.values()])
    start, views = 0, {}
    for name, tensor in tensors.items():
        views[name] = storage[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
    name = next(name for name in tensors if "lora_A" in name)
    views[name] = views[name].T.contiguous().T  # strides of another order
    assert cli(*scene.export_args("lora")).code == 0
    wanted = read_bundle(scene.out / "b").manifest.files
    shutil.rmtree(scene.out / "b")
    (scene.lora / WEIGHTS).unlink()
    torch.save(views, scene.lora / PICKLE)
    assert cli(*scene.export_args("lora"), "--allow-pickle").code == 0
    found = read_bundle(scene.out / "b").manifest.files
    assert {name: found[name] for name in found if name.startswith("model.onnx")} == {
        name: wanted[name] for name in wanted if name.startswith("model.onnx")
    }
    tied = {name: storage[:1].expand(tensor.shape) for name, tensor in tensors.items()}  # one number for all
    torch.save(tied, scene.lora / PICKLE)
    assert cli(*scene.export_args("lora"), "--allow-pickle").code == 0
    (scene.lora / PICKLE).unlink()
    save_file({name: tensor.contiguous() for name, tensor in tied.items()}, scene.lora / WEIGHTS)
    same = read_bundle(scene.out / "b").manifest.files["model.onnx.data"]
    assert cli(*scene.export_args("lora")).code == 0
    assert read_bundle(scene.out / "b").manifest.files["model.onnx.data"] == same


def test_what_is_no_tensor(scene: Scene, cli: Cli) -> None:
    _pickled(scene)
    for content, said in (
        ([torch.ones(2)], "holds no dictionary of tensors"),
        ({"a": 1}, "holds something else than named tensors"),
        ({"a.lora_A.weight": torch.ones(2, 2).to_sparse()}, "holds something else than named tensors"),
        ({"a.lora_A.weight": torch.tensor(np.nan)}, "holds NaN or infinite values"),
    ):
        torch.save(content, scene.lora / PICKLE)
        cli.refuses(3, f"lora/{PICKLE}: ", *scene.export_args("lora"), "--allow-pickle")
        cli.refuses(3, said, *scene.export_args("lora"), "--allow-pickle")


def test_a_task_that_is_added(scene: Scene, cli: Cli) -> None:
    assert cli(*scene.export_args("lora", "--mode conditioned --tasks a")).code == 0
    tensors = load_file(scene.lora2 / WEIGHTS)
    command = ("add", scene.out / "b", scene.lora2, "-o", scene.out / "c", "--quiet")
    assert cli(*command).code == 0
    (scene.lora2 / WEIGHTS).unlink()
    torch.save(tensors, scene.lora2 / PICKLE)
    wanted = (scene.out / "c" / "model.onnx.data").read_bytes()
    cli.refuses(3, f"{_ASK}, or, if you trust the file, read it with --allow-pickle", *command)
    assert cli(*command, "--allow-pickle").code == 0
    assert (scene.out / "c" / "model.onnx.data").read_bytes() == wanted
