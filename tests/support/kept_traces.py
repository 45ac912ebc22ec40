"""Keeps what transformers' exporter made of small models: tracing is most of what an export of the tests takes.

A model of the same classes, configuration and shapes, with the same inputs and settings, gives a copy of the same graph
with its own weights in it: a trace sees shapes, never values. Everything before and after the exporter runs each time.
All workers of a run share what is kept; the next run begins anew. The copy is not the exporter's own to the byte, so
this is for tests that run bundles.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnx_ir as ir
import pytest

#: Larger models are traced each time: few tests have one, and a graph of one is no small thing to keep.
_MOST = 4 << 20


@pytest.fixture(scope="module", autouse=True)
def traces_are_kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For every test of a folder whose ``conftest.py`` names it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "traces"
    folder.mkdir(exist_ok=True)
    with kept_traces(folder):
        yield


@contextmanager
def kept_traces(folder: Path) -> Iterator[None]:
    """While it lasts, the exporter runs once for every structure; its graphs are in `folder`."""
    from transformers.exporters import exporter_onnx

    exporter: Any = exporter_onnx.OnnxExporter
    export = exporter.export

    def export_once(self: Any, model: Any, inputs: Any, config: Any) -> Any:
        tensors = model.state_dict(keep_vars=True)
        if sum(tensor.nbytes for tensor in tensors.values()) > _MOST:
            return export(self, model, inputs, config=config)
        file = folder / _key(model, tensors, inputs, config)
        if not file.exists():
            program = export(self, model, inputs, config=config).program
            written = file.with_suffix(f".{os.getpid()}")
            written.write_bytes(ir.serde.serialize_model(program).SerializeToString())
            written.rename(file)  # whole, or not there: another worker may look for it
        program = ir.serde.deserialize_model(onnx.ModelProto.FromString(file.read_bytes()))
        return SimpleNamespace(program=_with_weights(program, tensors))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "export", export_once)
        yield


def _with_weights(program: ir.Model, tensors: dict[str, Any]) -> ir.Model:
    """The graph with the values of these tensors in the place of those of the model that was traced."""
    for name, value in program.graph.initializers.items():
        if name in tensors:
            assert value.const_value is not None
            assert list(value.const_value.shape) == list(tensors[name].shape), name
            value.const_value = ir.tensor_adapters.TorchTensor(tensors[name].detach(), name=name)
    return program


def _key(model: Any, tensors: dict[str, Any], inputs: Any, config: Any) -> str:
    """Of all that a trace depends on: the classes and the code of their forwards, the settings, and shapes."""
    own = getattr(model, "config", None)
    said: list[Any] = [
        type(getattr(model, "half_of", model)),
        inputs,
        config,
        getattr(own, "_attn_implementation", None),
    ]
    for name, module in model.named_modules():
        code = getattr(module.forward, "__code__", None)
        said.append((name, type(module), *((code.co_code, code.co_names) if code else ())))
    if own is not None:
        said.append({name: value for name, value in own.to_dict().items() if name != "_name_or_path"})
    said += [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    return hashlib.sha256(repr(said).encode()).hexdigest()
