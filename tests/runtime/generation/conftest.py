"""A small decoder with adapters of every method, exported in every mode when a test first asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.trained import Trained
from tests.exporter.validation.adapters import linear_shapes, write_ept, write_lora, write_tucka
from tests.malformed.scene import Cli
from tests.support.decoders import write_decoder
from tests.support.trained import trained_model

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
#: name -> adapters, options
MODES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "ept": (("ept",), {"mode": "conditioned", "top_k": 2}),
    "ept dynamic": (("ept",), {"mode": "dynamic", "top_k": 2}),
    "ept static": (("ept",), {"mode": "static", "top_k": 2, "task": "task1"}),
    "ept int4": (("ept",), {"mode": "conditioned", "top_k": 2, "precision": "int4"}),
    "ept fp16": (("ept",), {"mode": "conditioned", "top_k": 2, "precision": "fp16"}),
    "tucka row": (("tucka",), {"mode": "dynamic", "routing": "row"}),
    "tucka batch": (("tucka",), {"mode": "dynamic", "routing": "batch"}),
    "tucka prompt": (("tucka",), {"mode": "dynamic", "routing": "prompt"}),
    "lora": (("lora a", "lora b"), {"mode": "conditioned"}),
}


class Workshop:
    """Bundles and references by name, each made once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.base = write_decoder("llama", root / "base", max_position_embeddings=128, pad_token_id=None)
        shapes = linear_shapes(self.base, TARGETS)
        write_ept(root / "ept", shapes, seed=1, tasks=3, strength=0.4)
        write_tucka(root / "tucka", shapes, seed=2, strength=0.5)
        write_lora(root / "lora a", shapes, seed=3, strength=0.4)
        write_lora(root / "lora b", shapes, seed=4, rank=5, strength=0.4)
        self._bundles: dict[str, Bundle] = {}
        self._references: dict[str, Trained] = {}

    def bundle(self, name: str) -> Bundle:
        """The bundle of one of `MODES`."""
        if name not in self._bundles:
            adapters, options = MODES[name]
            folders = [self._root / adapter for adapter in adapters]
            out = self._root / f"bundle {name}"
            self._bundles[name] = export_bundle(self.base, folders, out, ExportOptions(**options))
        return self._bundles[name]

    def reference(self, name: str) -> Trained:
        """The base in PyTorch, in float64, with the adapter of one of `MODES`."""
        adapters, options = MODES[name]
        if adapters[0] not in self._references:
            folders = [self._root / adapter for adapter in adapters]
            self._references[adapters[0]] = trained_model(self.base, folders, top_k=options.get("top_k"))
        return self._references[adapters[0]]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("decoders"))


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capfd)
