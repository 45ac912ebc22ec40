"""Ids of the hub in the place of folders: huggingface_hub's own client, its own cache, and a server on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from eptx.bundle import read_bundle
from eptx.errors import AdapterError
from eptx.exporter.methods.read import read_adapter
from eptx.exporter.validation import validate_bundle
from tests.exporter.folders.hub import SHA, eptx, find, serving
from tests.exporter.trained.models import peft_model, save, write_base

#: Nobody listens here.
DOWN = "http://127.0.0.1:9"


@dataclass(frozen=True)
class World:
    """A hub.

    Attributes:
        endpoint: its address.
        root: where its repositories lie.
    """

    endpoint: str
    root: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("hub")
    base = write_base("bert", "BertModel", root / "base")
    (base / "onnx").mkdir()
    (base / "onnx" / "model.onnx").write_bytes(b"x" * 99)
    model = peft_model(base, "BertModel", target_modules=["query"], task_type="FEATURE_EXTRACTION")
    model.peft_config["default"].base_model_name_or_path = "owner/base"
    adapter = save(model, root / "adapter")
    shutil.copytree(adapter, root / "runs" / "checkpoint-5")
    shutil.copytree(base, root / "pickled", ignore=shutil.ignore_patterns("*.safetensors", "onnx"))
    (root / "pickled" / "pytorch_model.bin").write_bytes(b"never read")
    shutil.copytree(adapter, root / "binary", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(adapter / "adapter_model.safetensors"), root / "binary" / "adapter_model.bin")
    (root / "data").mkdir()
    (root / "data" / "train.jsonl").write_text("{}")
    names = {f"owner/{path.name}": path for path in root.iterdir()}
    with serving(names) as endpoint:
        yield World(endpoint, root)


def test_ids_are_fetched_and_then_served_by_the_cache_alone(world: World, tmp_path: Path) -> None:
    wanted = [["owner/base", "owner/adapter"], ["owner/adapter@v1"], ["owner/base", f"owner/adapter@{SHA}"]]
    inside = ["owner/base", "owner/runs"]
    *first, [_, below] = find(tmp_path, world.endpoint, *wanted, inside)  # type: ignore[misc]
    assert below.endswith(f"models--owner--runs/snapshots/{SHA}/checkpoint-5")
    snapshot = tmp_path / "hub" / "models--owner--{}" / "snapshots" / SHA
    base, adapter = (str(snapshot).format(name) for name in ("base", "adapter"))
    assert first == [[base, adapter]] * 3  # of the second the adapter's own configuration names the base
    assert sorted(path.name for path in Path(base).iterdir()) == ["config.json", "model.safetensors"]  # no onnx/
    for name in ("config.json", "model.safetensors"):
        assert (Path(base) / name).read_bytes() == (world.root / "base" / name).read_bytes()
    shutil.copytree(world.root / "adapter", tmp_path / "cwd" / "owner" / "runs")  # a path counts first
    assert find(tmp_path, DOWN, *wanted, inside, cwd=tmp_path / "cwd") == [*first, [base, "owner/runs"]]


def test_a_cache_made_by_hand(world: World, tmp_path: Path) -> None:
    """As another program leaves it: blobs, links to them, and a ref."""
    home = tmp_path / "hub" / "models--owner--base"
    snapshot = home / "snapshots" / SHA
    for folder in (home / "blobs", home / "refs", snapshot):
        folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(world.root / "base" / name, home / "blobs" / f"blob-of-{name}")
        (snapshot / name).symlink_to(f"../../blobs/blob-of-{name}")
    (home / "refs" / "main").write_text(SHA)
    command = ["owner/base", str(world.root / "adapter")]
    assert find(tmp_path, DOWN, command, offline=True) == [[str(snapshot), command[1]]]
    (snapshot / "model.safetensors").unlink()
    [refused] = find(tmp_path, DOWN, command, offline=True)
    assert refused == {
        "code": 3,
        "said": "owner/base: the hub's cache holds no weights of it: run `hf download owner/base`",
    }


REFUSED = {
    "no such repository": (["owner/nothing", "owner/adapter"], "owner/nothing: no such base model folder, and no such"),
    "no such adapter": (["owner/base", "owner/nothing"], "owner/nothing: no such adapter folder, and no such public"),
    "no such revision": (["owner/base@v9", "owner/adapter"], "owner/base@v9: the hub's owner/base has no revision v9"),
    "a pickle alone": (
        ["owner/pickled", "owner/adapter"],
        "owner/pickled: has no model.safetensors, and eptx never reads pickles (pytorch_model.bin): load it with",
    ),
    "an adapter's pickle alone": (
        ["owner/base", "owner/binary"],
        "owner/binary: has no adapter_model.safetensors but a pickle (adapter_model.bin): if you trust it, add",
    ),
    "neither": (["owner/base", "owner/data"], "owner/data: the hub's repository is no adapter folder: it has neither"),
    "no id": (["owner/base/more", "owner/adapter"], "owner/base/more: no such base model folder"),
}
ALONE = {
    "never fetched": (
        ["owner/base", "owner/x"],
        "owner/x: no such adapter folder; it is not in the hub's cache either",
    ),
    "a revision": (["owner/base", "o/x@v1"], "run `hf download o/x --revision v1` where there is a network"),
}


def test_refusals(world: World, tmp_path: Path) -> None:
    found = find(tmp_path, world.endpoint, *[command for command, _ in REFUSED.values()])
    found += find(tmp_path, DOWN, *[command for command, _ in ALONE.values()], offline=True)
    for (_, said), refused in zip([*REFUSED.values(), *ALONE.values()], found, strict=True):
        told: Any = refused
        assert told["code"] == 3
        assert said in told["said"]
        assert "\n" not in told["said"]


def test_an_adapters_pickle(world: World, tmp_path: Path) -> None:
    """It is fetched with --allow-pickle alone, and is what a local one is."""
    command = ["owner/base", "owner/binary", "--allow-pickle"]
    [[_, folder]] = find(tmp_path, world.endpoint, command)  # type: ignore[misc]
    assert sorted(path.name for path in Path(folder).iterdir()) == ["adapter_config.json", "adapter_model.bin"]
    found = find(tmp_path, DOWN, command, command[:2], offline=True)
    assert found[0] == found[1] and found[0][1] == folder  # type: ignore[index]
    with pytest.raises(AdapterError, match=r"holds adapter_model\.bin, a pickle, .* read it with --allow-pickle"):
        read_adapter([Path(folder)])  # a cache that holds one does not make it allowed
    own: Any = read_adapter([Path(folder)], allow_pickle=True)
    saved: Any = read_adapter([world.root / "adapter"])
    for module, factors in saved.by_task["task0"].items():
        np.testing.assert_array_equal(own.by_task["task0"][module].a, factors.a, strict=True)
        np.testing.assert_array_equal(own.by_task["task0"][module].b, factors.b, strict=True)


def test_export_by_id(world: World, tmp_path: Path) -> None:
    """The bundle is that of the folders, and says beside it where they are."""
    out = tmp_path / "bundle"
    said = eptx(tmp_path, world.endpoint, "export", "owner/adapter", "-o", str(out), "--mode", "static", "--json", "-q")
    assert json.loads("\n".join(said))["tasks"] == ["task0"]
    # In a process too: this one keeps what transformers' exporter made, whose bytes are not a new one's.
    folders = [str(world.root / "base"), str(world.root / "adapter")]
    eptx(tmp_path, DOWN, "export", *folders, "-o", str(tmp_path / "other"), "--mode", "static", "--json", "-q")
    graphs = [read_bundle(folder).manifest.files["model.onnx"] for folder in (out, tmp_path / "other")]
    assert graphs[0] == graphs[1]
    report = validate_bundle(out)
    assert report.passed
