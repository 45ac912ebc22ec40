"""Goldens of released codes whose tokens weigh experts, from the files that they save: `eptx convert`, then dynamic.

Recorded with the released codes themselves: HydraLoRA's and LoRAMoE's whole `peft` (of the pair that their layers give
the first counts), with a classifier and with trained biases in their files; and MoE-PEFT's whole model, in both of its
ways to run the experts, one of which drops out whatever `eval()` says: with a probability of 1e-12.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import eptx
from eptx.exporter import ExportOptions
from tests.exporter.goldens.by_proof import passes
from tests.exporter.goldens.test_goldens import GOLDEN, TOLERANCE, _run, _sessions

CASES = {"hydra_lora_bert48": "logits", "loramoe_bert48": "last_hidden_state", "mixlora_llama48": "logits"}


@pytest.mark.parametrize("name", CASES)
def test_from_what_the_released_code_saves(name: str, tmp_path: Path) -> None:
    folder, key = GOLDEN / name, CASES[name]
    shutil.copytree(folder / "base", tmp_path / "base")
    eptx.convert(folder / "adapter", tmp_path / "adapter")
    bundle = eptx.export(tmp_path / "base", tmp_path / "adapter", tmp_path / "out", ExportOptions(mode="dynamic"))
    arrays = dict(np.load(folder / "golden.npz"))
    for session in _sessions(bundle):
        for batch in range(3):
            feeds = {part: arrays[f"in{batch}.{part}"] for part in ("input_ids", "attention_mask")}
            want = arrays[f"out{batch}.{key}"]
            kept = feeds["attention_mask"] == 1 if want.ndim == 3 else np.ones(len(want), dtype=bool)
            found = _run(session, feeds)[key]
            assert np.abs(found - want)[kept].max() <= TOLERANCE * max(1.0, np.abs(want).max())
    passes(bundle)
