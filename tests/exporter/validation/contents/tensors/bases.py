"""Tiny bases with an adapter each, their bundles, and the trained model as transformers loads it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import transformers

from eptx.bundle import Bundle
from eptx.exporter.quiet import quiet
from eptx.exporter.validation.contents.tensors import compare_tensors
from eptx.runtime.validation.check import Check
from tests.exporter.bases.conftest import build
from tests.exporter.validation.adapters import linear_shapes, write_lora
from tests.exporter.validation.workshop import Workshop
from tests.support.decoders import DECODERS, write_decoder
from tests.support.encoder_decoders import ENCODER_DECODERS, TARGETS, write_encoder_decoder

ENDS = ("query", "value", "output.dense", "q_proj", "v_proj", "o_proj", "down_proj", "query_proj", "qkv_proj", "fc1")

Change = Callable[[ir.Graph], None]
#: A base's workshop by its name and settings, made once.
Made = Callable[..., "Base"]


class Base:
    """A base and one LoRA adapter of it."""

    def __init__(self, name: str, folder: Path, **changes: Any) -> None:
        folder.mkdir()
        with quiet():
            if name in DECODERS:
                write_decoder(name, folder / "base", **changes)
            elif name in ENCODER_DECODERS:
                write_encoder_decoder(name, folder / "base", **changes)
            else:
                build(name).save_pretrained(folder / "base")
            self.model = trained(folder / "base")
        self.workshop = Workshop(folder / "base", folder)
        ends = TARGETS if name in ENCODER_DECODERS else ENDS
        shapes = linear_shapes(folder / "base", ends)
        self.modules = {module for module in shapes if "pooler" not in module}
        self.adapters = [
            write_lora(folder / f"lora{seed}", {name: shapes[name] for name in sorted(self.modules)}, seed=seed)
            for seed in (1, 2)
        ]
        self._bundles: dict[tuple[str, ...], Bundle] = {}

    def bundle(self, mode: str = "conditioned", precision: str = "fp32") -> Bundle:
        """Of one task if static, of two otherwise; made once."""
        key = (mode, precision)
        if key not in self._bundles:
            adapters = self.adapters[:1] if mode == "static" else self.adapters
            self._bundles[key] = self.workshop.export(adapters, mode=mode, precision=precision)
        return self._bundles[key]

    def checks(self, bundle: Bundle) -> list[Check]:
        """What the comparison says."""
        return compare_tensors(bundle, self.model, self.touched(bundle), {}, {})

    def touched(self, bundle: Bundle) -> Collection[str]:
        """The folded layers' weights, by today's names."""
        if bundle.manifest.mode != "static":
            return ()
        linears = {name for name, _ in self.model.named_modules()}
        assert self.modules & linears or self.model.config.model_type == "vit"
        return {f"{module}.weight" for module in self.modules}

    def damaged(self, change: Change, file: str = "model.onnx", **how: str) -> dict[str, str]:
        """What the comparison finds wrong in a bundle with another graph."""
        return wrongs(self.checks(self.workshop.edited(self.bundle(**how), change, file)))


def trained(folder: Path) -> Any:
    """The model of a folder, by the class that its configuration names."""
    config = transformers.AutoConfig.from_pretrained(folder)
    return getattr(transformers, config.architectures[0]).from_pretrained(folder).float().eval()


def wrongs(checks: Collection[Check]) -> dict[str, str]:
    """Part -> what is wrong."""
    return {check.name: check.wrong for check in checks if check.wrong is not None}


def replaced(name: str, change: Callable[[np.ndarray], Any]) -> Change:
    """A change of one initializer's numbers: in place, or to what is given back."""

    def edit(graph: ir.Graph) -> None:
        value = graph.initializers[name]
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        array = (lambda other: array if other is None else other)(change(array))
        value.const_value = ir.Tensor(np.ascontiguousarray(array), name=name)
        value.shape = ir.Shape(array.shape)

    return edit


def attribute(layer: int, name: str, number: float) -> Change:
    """A change of one setting of a layer's attention."""

    def edit(graph: ir.Graph) -> None:
        node = [node for node in graph if node.op_type == "GroupQueryAttention"][layer]
        made = ir.AttrFloat32(name, number) if isinstance(number, float) else ir.AttrInt64(name, number)
        node.attributes[name] = made

    return edit
