"""Layers of released codes, run once: what they save is converted and read, and gives what they gave, within 1e-6.

`tests/golden/layers/<name>/golden.npz` has a layer's input [1, 5, in], what each task added to its output [tasks, 1, 5,
out], and the tensors by the names in the file.

- MoSLoRA, MultiLoRA, AdaMix and MOELoRA: the classes of the layers. Of MOELoRA's model only the embedding and the gate
  were there, since its other code needs a transformers of 2023.
- MoRE: the layer of the first and of the last version, in a PEFT of today.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import eptx
from eptx.exporter.adapters.constant import ConstantAdapter
from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.methods.read import read_adapter

LAYERS = Path(__file__).parents[2] / "golden" / "layers"


@pytest.mark.parametrize("name", sorted(folder.name for folder in LAYERS.iterdir()))
def test_what_a_released_layer_gave(name: str, tmp_path: Path) -> None:
    case = json.loads((LAYERS / name / "case.json").read_text())
    arrays = dict(np.load(LAYERS / name / "golden.npz"))
    held = {key.removeprefix("tensor "): torch.from_numpy(array) for key, array in arrays.items() if " " in key}
    (tmp_path / "saved").mkdir()
    torch.save({"model_state_dict": held} if case["nested"] else held, tmp_path / "saved" / case["file"])
    if case["config"] is not None:
        (tmp_path / "saved" / "adapter_config.json").write_text(json.dumps(case["config"]))
    eptx.convert(tmp_path / "saved", tmp_path / "adapter", case["settings"])
    adapter = read_adapter([tmp_path / "adapter"])
    assert isinstance(adapter, ConstantAdapter) and len(adapter.tasks) == len(arrays["y"])
    for task, wanted in zip(adapter.tasks, arrays["y"], strict=True):
        update = adapter.update(task, "net.layer", lambda: np.zeros((0, 0)))
        assert isinstance(update, LinearUpdate) and update.a is not None and update.b is not None
        found = arrays["x"].astype(np.float64) @ update.a.T.astype(np.float64) @ update.b.T
        assert np.abs(found - wanted).max() <= 1e-6 * max(1, np.abs(wanted).max())
