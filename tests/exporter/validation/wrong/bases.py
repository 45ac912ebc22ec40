"""Honest bundles of everything that people bring, each exported once in a session; what damages one works on a copy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from eptx.bundle import Bundle
from eptx.calibration.quantize import Range
from eptx.exporter import ExportOptions, Route
from eptx.exporter.options import Precision, Provider
from eptx.exporter.validation import ValidateOptions, validate_bundle
from tests.exporter.validation.adapters import (
    CONFIG,
    Shapes,
    add_heads,
    linear_shapes,
    write_ept,
    write_hydra,
    write_lily,
    write_lora,
    write_mixlora,
    write_tucka,
)
from tests.exporter.validation.workshop import Workshop
from tests.exporter.validation.wrong.models import write_base
from tests.support.bundles import copy_bundle
from tests.support.encoder_decoders import TARGETS, KeptGraphs
from tests.support.quantized import Choice, quantized

Method = Literal["lora", "ept", "tucka", "heads", "hydra", "lily", "mixlora"]
LABELS = {"cola": 2, "mnli": 3, "stsb": 1}
NAMES = {"cola": ["bad", "good"], "mnli": ["entailment", "neutral", "contradiction"]}
ROUTES = {"x": Route(0, (0.6, 0.4)), "y": Route(2, (0.3, 0.7))}
#: Of two feed-forwards of four experts, of which two run.
CHOICES = {
    "x": (Route(0, (0.7, 0.0, 0.3, 0.0)), Route(0, (0.4, 0.6, 0.0, 0.0))),
    "y": (Route(0, (0.0, 0.2, 0.0, 0.8)), Route(0, (0.0, 0.0, 0.45, 0.55))),
}
WIDTH, WINDOW = 32, 16
#: Of every architecture.
_ENDS = ("query", "key", "value", "output.dense", "q_proj", "v_proj", "down_proj", "query_proj", "value_proj", "fc1")
#: Wide enough for the activations of the tiny BERT.
_RANGE = Range(-12.0, 12.0)
_LORA: dict[str, Any] = {"mode": "conditioned", "tasks": ["alpha", "beta"]}
_EPT: dict[str, Any] = {"mode": "conditioned", "top_k": 2}

#: bundle -> base, adapter, options of the export.
BUNDLES: Mapping[str, tuple[str, Method, dict[str, Any]]] = {
    "bert": ("bert", "lora", _LORA),
    "bert static": ("bert", "ept", {"mode": "static", "task": "task1", "top_k": 2}),
    "bert fp16": ("bert", "lora", _LORA | {"precision": "fp16"}),
    "bert tucka": ("bert", "tucka", {"mode": "dynamic", "routing": "row"}),
    "bert hydra": ("bert", "hydra", {"mode": "dynamic"}),
    "bert lily": ("bert", "lily", {"mode": "dynamic", "routing": "row"}),
    "bert mixlora": ("bert", "mixlora", {"mode": "dynamic"}),
    "bert mixlora frozen": ("bert", "mixlora", {"mode": "conditioned", "tasks": ["x", "y"], "routes": CHOICES}),
    "bert tucka frozen": ("bert", "tucka", {"mode": "conditioned", "routes": ROUTES}),
    "heads": ("bert bare", "heads", _EPT),
    "heads mean": ("bert bare", "heads", {"mode": "dynamic", "top_k": 2}),
    "roberta": ("roberta", "lora", _LORA),
    "deberta": ("deberta", "lora", _LORA),
    "vit": ("vit", "lora", _LORA),
    "llama": ("llama", "ept", _EPT),
    "llama int4": ("llama", "ept", _EPT | {"precision": "int4"}),
    "mistral": ("mistral", "lora", _LORA),
    "qwen2": ("qwen2", "lora", _LORA),
    "gemma2": ("gemma2", "lora", _LORA),
    "t5": ("t5", "lora", _LORA),
}
#: quantized bundle of "heads" -> the scheme of every product.
QUANTIZED: Mapping[str, Choice] = {
    "int8": "int8",
    "int8 static": "int8-static",
    "int8 blocks": "int8-blocks",
    "int4": "int4-blocks",
}


class Bases:
    """Makes each base, adapter and bundle when it is first asked for.

    Args:
        root: where everything goes.
        provider: which bundles are exported for.
        precision: of bundles that have none of their own.

    Attributes:
        kept: stands in for the tracing of encoder-decoders, which it does once for each base.
    """

    def __init__(self, root: Path, *, provider: Provider = "cpu", precision: Precision = "fp32") -> None:
        self._root, self._provider, self._precision = root, provider, precision
        self._shops: dict[str, Workshop] = {}
        self._adapters: dict[str, list[Path]] = {}
        self._bundles: dict[str, Bundle] = {}
        self.kept = KeptGraphs(_made(root / "kept"))

    def bundle(self, name: str) -> Bundle:
        """An honest bundle, of `BUNDLES` or `QUANTIZED`; it must not be changed."""
        if name not in self._bundles:
            self._bundles[name] = self.export(name)
        return self._bundles[name]

    def proof(self, name: str) -> Path:
        """What `validate_bundle` has recorded of an honest bundle."""
        path = self._root / f"{name}.proof"
        if not path.exists():
            report = validate_bundle(self.bundle(name).path, ValidateOptions(providers=["cpu"], record=path))
            assert report.passed, report.reason
        return path

    def copy(self, name: str, damage: Callable[[Path], None]) -> Path:
        """A copy of a bundle, damaged."""
        folder = copy_bundle(self.bundle(name).path, self.shop("bert").path())
        damage(folder)
        return folder

    def shop(self, base: str) -> Workshop:
        """A base with its graph; "bert bare" is "bert" without its classifier."""
        if base not in self._shops:
            folder = _made(self._root / base.replace(" ", "_"))
            name = base.removesuffix(" bare")
            model = write_base(name, folder / "base")
            self._shops[base] = Workshop(model, folder, base.endswith(" bare"), self._provider)
        return self._shops[base]

    def shapes(self, base: str) -> Shapes:
        """The linear layers that adapters take."""
        ends = TARGETS if base == "t5" else _ENDS
        found = linear_shapes(self.shop(base).base, ends)
        return {name: shape for name, shape in found.items() if "pooler" not in name and "classifier" not in name}

    def adapters(self, name: str) -> list[Path]:
        """The adapter's folders of a bundle of `BUNDLES`."""
        base, method, _ = BUNDLES[name]
        key = f"{base} {method}" if method != "heads" else name
        if key not in self._adapters:
            self._adapters[key] = self._train(base, method, "mean" if name == "heads mean" else "pooler")
        return self._adapters[key]

    def export(self, name: str, **changed: Any) -> Bundle:
        """A bundle of that name, made anew, with options of its own."""
        if name in QUANTIZED:
            return self._quantized(name)
        base, _, options = BUNDLES[name]
        with mock.patch("eptx.exporter.steps.load.load_encoder_decoder", self.kept):
            return self.shop(base).export(self.adapters(name), **{"precision": self._precision} | options | changed)

    def _quantized(self, name: str) -> Bundle:
        shop = self.shop("bert bare")
        options = ExportOptions(base_onnx=shop.onnx, **_EPT)
        return quantized(shop.base, self.adapters("heads"), shop.path(), options, QUANTIZED[name], bounds=_RANGE)

    def _train(self, base: str, method: Method, pooling: str) -> list[Path]:
        shop, shapes = self.shop(base), self.shapes(base)
        if method == "hydra":
            return [write_hydra(shop.path(), shapes, seed=3)]
        if method == "lily":
            return [write_lily(shop.path(), shapes, seed=3)]
        if method == "mixlora":
            found = linear_shapes(shop.base, ("intermediate.dense", "output.dense"))
            return [write_mixlora(shop.path(), {n: s for n, s in found.items() if "attention" not in n}, seed=3)]
        if method == "tucka":
            return [write_tucka(shop.path(), shapes, seed=3, tasks=("x", "y"), rank=4)]
        if method == "lora":
            return [write_lora(shop.path(), shapes, seed=seed, strength=0.3) for seed in (1, 2)]
        adapter = write_ept(shop.path(), shapes, seed=5, tasks=3, sizes=(2, 2, 4, 4), rank=4, strength=0.3)
        if method == "heads":
            add_heads(adapter, LABELS, WIDTH, pooling=pooling)
            config = json.loads((adapter / CONFIG).read_text())
            (adapter / CONFIG).write_text(json.dumps(config | {"task_labels": NAMES}))
        return [adapter]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
