"""What old releases try: goldens of the released code as bundles, packaged for Triton, and every operator's body."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx.bundle import Bundle, Manifest, TensorSpec, read_bundle
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.bundle.least_release import least_release
from eptx.exporter.bundle.lower import lower
from eptx.manifest.names import PAST
from eptx.runtime.packaging import package_triton
from tests.exporter.ops.test_portable import CASES, LINEAR
from tests.support.decoders import write_tokenizer
from tests.support.linear_graph import DOUBLE, attached

GOLDEN = Path(__file__).parents[1] / "golden"
#: Name -> golden case and options; a mode is every one's.
BUNDLES: dict[str, tuple[str, dict[str, Any]]] = {
    "ept-static": ("ept_bert_seqcls", {"mode": "static", "task": "task1"}),
    "ept-conditioned": ("ept_bert_seqcls", {"mode": "conditioned"}),
    "ept-dynamic": ("ept_bert_seqcls", {"mode": "dynamic"}),
    "ept-fp16": ("ept_bert_seqcls", {"mode": "conditioned", "precision": "fp16"}),
    "ept-int8": ("ept_bert_seqcls", {"mode": "conditioned", "precision": "int8"}),
    "ept-int4": ("ept_bert_seqcls", {"mode": "conditioned", "precision": "int4"}),
    "ept-inlined": ("ept_bert_seqcls", {"mode": "dynamic", "min_ort": "1.15"}),
    "clip-inlined": ("tucka_clip_imagecls", {"mode": "dynamic", "min_ort": "1.15"}),
    "tucka-dynamic": ("tucka_bert48", {"mode": "dynamic"}),
    "tucka-deberta": ("tucka_deberta64", {"mode": "dynamic"}),
    "tucka-vit": ("tucka_vit_cifar_cls", {"mode": "dynamic"}),
    "tucka-clip": ("tucka_clip_imagecls", {"mode": "dynamic"}),
    "encoder-decoder": ("ept_t5_ks16", {"mode": "conditioned"}),
    "decoder": ("ept_llama64", {"mode": "conditioned"}),
    "decoder-int4": ("ept_llama64", {"mode": "conditioned", "precision": "int4"}),
}


@dataclass(frozen=True)
class Tried:
    """A model that releases try.

    Attributes:
        name: of its folder.
        needs: the release that eptx says it needs.
        tolerance: how far its outputs may be. 1.17 and 1.18 do not round the activations of MatMulNBits to 8 bits: that
            is 6.5e-3 here from releases that do, and 2.7e-7 from the same graph that is told not to round.
        wanted: the released code's own logits for the feeds, where they are those of a golden and nothing is rounded.
    """

    name: str
    needs: str
    tolerance: float = 1e-5
    wanted: np.ndarray | None = None


def make(place: Path, work: Path, only: str) -> Iterator[Tried]:
    """Makes models, each in a folder in `place`, with its feeds.

    Args:
        place: where they go.
        work: where bundles and packages are made.
        only: what their names hold.
    """
    for name, (case, options) in BUNDLES.items():
        if only in name:
            yield from _bundle(name, GOLDEN / case, options, place, work)
    for name, (adapter, settings, ids) in CASES.items():
        if only in name:
            model = _in_float32(attached(adapter, LINEAR.weight, LINEAR.x.shape, settings))
            needed, _ = least_release([(model, lower(model))], "cpu")
            assert needed is not None
            _put(place / name, {"x": LINEAR.x.astype(np.float32)} | ({"task_id": np.array(ids)} if ids else {}))
            ir.save(model, place / name / "model.onnx")
            yield Tried(name, needed.version)


def _in_float32(model: ir.Model) -> ir.Model:
    """A graph that a test makes in float64, as bundles are: old releases lack kernels for float64 in what they fuse."""
    for value in [
        *model.graph.inputs,
        *model.graph.initializers.values(),
        *(v for n in model.graph for v in n.outputs),
    ]:
        if value.dtype == DOUBLE:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            if value.const_value is not None:
                value.const_value = ir.Tensor(value.const_value.numpy().astype(np.float32), name=value.name)
    return model


def given(bundle: Path, place: Path) -> Tried:
    """A bundle of the user's own as a model that releases try."""
    opened = read_bundle(bundle, verify=False)
    name = bundle.resolve().name
    shutil.copytree(bundle, place / name)
    _put(place / name, feeds_of(opened.manifest))
    return Tried(name, _needs(opened))


def _bundle(name: str, golden: Path, options: Mapping[str, Any], place: Path, work: Path) -> Iterator[Tried]:
    base, top_k = golden / "base", json.loads((golden / "case.json").read_text()).get("top_k")
    if "llama" in golden.name:
        base = Path(shutil.copytree(base, work / f"{name}-base"))
        write_tokenizer(base, 180)
    with np.load(golden / "golden.npz") as arrays:
        settings = ExportOptions(**options, top_k=top_k)
        bundle = export_bundle(base, [golden / "adapter"], work / "bundles" / name, settings)
        feeds, wanted = feeds_of(bundle.manifest), None
        given = {key.removeprefix("in0."): arrays[key] for key in arrays if key.startswith("in0.")}
        if bundle.manifest.generation is None:
            feeds = feeds_of(bundle.manifest, given)
            own = [key for key in ("out0.logits", "out0.task1.logits") if key in arrays]
            if bundle.manifest.precision == "fp32" and any(s.name == "logits" for s in bundle.manifest.outputs):
                wanted = arrays[own[0]] if own else None
            folder = package_triton(bundle, work / "triton").path / "1"
        else:
            folder = bundle.path
    shutil.copytree(folder, place / name)
    _put(place / name, feeds)
    yield Tried(name, _needs(bundle), 2e-2 if bundle.manifest.precision == "int4" else 1e-5, wanted)


def feeds_of(manifest: Manifest, known: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """A batch for a bundle: what is known, random tokens, an empty cache, task 1 where the caller names one."""
    rng = np.random.default_rng(0)
    batch = len(next(iter(known.values()))) if known else 2
    length = next(iter(known.values())).shape[1] if known and "input_ids" in known else 7
    return {spec.name: _feed(spec, dict(known or {}), (batch, length), manifest, rng) for spec in manifest.inputs}


def _feed(
    spec: TensorSpec, known: dict[str, np.ndarray], size: tuple[int, int], manifest: Manifest, rng: np.random.Generator
) -> np.ndarray:
    if spec.name in known:
        return known[spec.name].astype(spec.dtype)
    sizes = [dim if isinstance(dim, int) else size[min(i, 1)] for i, dim in enumerate(spec.shape)]
    if spec.name.startswith(PAST):
        sizes[2] = 0
    if spec.name == "input_ids":
        return rng.integers(3, manifest.vocab_size or 30, sizes).astype(spec.dtype)
    if spec.name in ("attention_mask", "task_id"):
        return np.ones(sizes, spec.dtype)
    if spec.name == "position_ids":
        return np.broadcast_to(np.arange(sizes[1], dtype=spec.dtype), sizes).copy()
    return (rng.standard_normal(sizes) if "float" in spec.dtype else np.zeros(sizes)).astype(spec.dtype)


def _needs(bundle: Bundle) -> str:
    assert bundle.manifest.onnxruntime is not None, f"{bundle.path.name} does not say which ONNX Runtime it needs"
    return bundle.manifest.onnxruntime.version


def _put(folder: Path, feeds: Mapping[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "feeds.npz", **feeds)  # type: ignore[arg-type]  # numpy's stub takes any keyword for a flag
