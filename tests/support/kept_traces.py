"""Keeps what transformers' exporter made of small models: tracing is two thirds of what most exports of the tests take.

The same model, with the same inputs and settings, gives a fresh copy of the same graph. Everything before and after
the exporter runs each time. The copy is not the exporter's own to the byte, so this is for tests that run bundles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import onnx
import onnx_ir as ir
import pytest

#: Of one process.
_KEPT: dict[str, bytes] = {}
#: Larger models are traced each time: few tests have one, and a graph of one is no small thing to keep.
_MOST = 4 << 20


@contextmanager
def kept_traces() -> Iterator[None]:
    """While it lasts, the exporter runs once for every model."""
    from transformers.exporters import exporter_onnx

    exporter: Any = exporter_onnx.OnnxExporter
    export = exporter.export

    def export_once(self: Any, model: Any, inputs: Any, config: Any) -> Any:
        if sum(tensor.nbytes for tensor in model.state_dict().values()) > _MOST:
            return export(self, model, inputs, config=config)
        key = _key(model, inputs, config)
        if key not in _KEPT:
            made = ir.serde.serialize_model(export(self, model, inputs, config=config).program)
            _KEPT[key] = made.SerializeToString()
        return SimpleNamespace(program=ir.serde.deserialize_model(onnx.ModelProto.FromString(_KEPT[key])))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "export", export_once)
        yield


def _key(model: Any, inputs: Any, config: Any) -> str:
    import torch

    hashed = hashlib.sha256()
    own = getattr(model, "config", None)
    said = [type(model), [(name, type(module)) for name, module in model.named_modules()], inputs, config]
    said += [] if own is None else [own.to_json_string(use_diff=False), getattr(own, "_attn_implementation", None)]
    hashed.update(repr(said).encode())
    for name, tensor in model.state_dict().items():
        hashed.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        hashed.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()
