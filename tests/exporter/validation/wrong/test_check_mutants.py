"""For each check of a validation, a one-line break of the exporter that only this check notices.

A row names the check, the line of the exporter that is broken, and what makes the check say nothing. The broken export
fails; with the check switched off it passes, so no other check would have seen it. The same export, unbroken, passes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import pytest

from eptx.bundle import Bundle
from eptx.calibration.quantize import one_product
from eptx.exporter.graph.edited import EditedGraph
from eptx.exporter.graph.ends.heads import put_heads
from eptx.exporter.graph.updates import attach_updates
from eptx.exporter.methods.ept.task_used import add_task_used
from eptx.exporter.steps import export as exporting
from eptx.exporter.steps import load as loading
from eptx.runtime.validation.comparison import compare
from eptx.runtime.validation.distance import Spreads
from tests.exporter.validation.adapters import write_lora
from tests.exporter.validation.wrong.bases import LABELS, Bases

Patch = tuple[Any, ...]
COMPARISON, QUANTIZED, EXPORT = (
    "eptx.runtime.validation.comparison.compare",
    "eptx.exporter.validation.quantized.weights",
    "eptx.exporter.steps.export",
)
_DOWN = "bert.encoder.layer.1.output.dense"


@dataclass(frozen=True)
class Mutant:
    """A check, and the break that it is there for.

    Attributes:
        check: what it compares.
        make: exports the bundle.
        broken: the attribute of the exporter that is replaced while it exports, and what replaces it.
        off: the attribute that the check is, and a replacement that finds nothing.
        names: what the reason says.
        options: of the validation.
    """

    check: str
    make: Callable[[Bases], Bundle]
    broken: Patch
    off: Patch
    names: str
    options: Callable[[Bases], dict[str, Any]] = lambda bases: {}


def _nothing(*arguments: Any, **named: Any) -> None:
    """A check that says nothing."""


def _named_wrongly(part: EditedGraph) -> None:
    """Query and value of the first layer are said to be each other's outputs."""
    _name_modules(part)
    query, value = (f"bert.encoder.layer.0.attention.self.{x}" for x in ("query", "value"))
    part.modules[query], part.modules[value] = part.modules[value], part.modules[query]


def _all_experts(part: EditedGraph) -> None:
    """The experts that no task uses are not said, so the others' numbers are not the adapter's."""
    _name_modules(part)
    part.modules = {name: replace(place, unused_experts=()) for name, place in part.modules.items()}


_name_modules = EditedGraph.name_modules


def _a_module_less(part: EditedGraph) -> None:
    """Where one module's output is is not said."""
    _name_modules(part)
    part.modules.pop(_DOWN, None)


def _no_biases(part: EditedGraph, heads: Any, tasks: Any) -> None:
    """Task heads without their biases."""
    put_heads(part, replace(heads, biases={task: bias * 0 for task, bias in heads.biases.items()}), tasks)


def _least_similar(editor: Any) -> Any:
    """The task that the input resembles least."""
    used = add_task_used(editor)
    used.producer().inputs[1].producer().op_type = "ArgMin"
    return used


def _codes_off(weight: np.ndarray) -> Any:
    """int8 codes of weights that are a little larger."""
    return _dynamic_int8(weight * np.where(np.arange(weight.shape[1]) == 3, 1.05, 1.0).astype(weight.dtype))


_dynamic_int8, _static_int8 = one_product.dynamic_int8, one_product.static_int8


def _wide(weight: np.ndarray, low: float, high: float) -> Any:
    """Ranges of activations that are just not too wide, and leave a dozen steps."""
    return _static_int8(weight, low * 4.5, high * 4.5)


def _no_update(editor: Any, site: Any, updates: Any, names: tuple[str, str]) -> None:
    """LoRA's second factors are zero."""
    attach_updates(editor, site, [update and replace(update, b=update.b * 0) for update in updates], names)


def _padding_moved(adapted: Any) -> None:
    """The row of the padding word, which is never looked at where anything is compared."""
    table = adapted.graphs[0].graph.model.graph.initializers["bert.embeddings.word_embeddings.weight"]
    rows = table.const_value.numpy().copy()
    rows[0] += 1
    table.const_value = ir.Tensor(rows, name=table.name)
    _store(adapted)


_store, _longest = exporting.store, loading.longest


def _no_hidden_states(part: EditedGraph, heads: Any, tasks: Any) -> None:
    """The bare model's own outputs are left out beside the heads' logits."""
    put_heads(part, heads, tasks)
    outputs = part.editor.model.graph.outputs
    outputs[:] = [value for value in outputs if value.name == "logits"]


def _bundle(name: str) -> Callable[[Bases], Bundle]:
    return lambda bases: bases.export(name)


def _inferring(bases: Bases) -> Bundle:
    return bases.shop("bert").export(bases.adapters("bert static"), mode="dynamic", top_k=2)


def _without_effect(bases: Bases) -> Bundle:
    shop = bases.shop("bert")
    adapters = [write_lora(shop.path(), bases.shapes("bert"), seed=seed, strength=1e-9) for seed in (1, 2)]
    return shop.export(adapters, mode="conditioned")


def _with_rows(bases: Bases) -> dict[str, Any]:
    """Rows of every task, and a budget that is honest for them."""
    rng = np.random.default_rng(0)
    rows = [
        {"task": task, "text": " ".join(f"t{n}" for n in rng.integers(0, 90, 9))} for task in LABELS for _ in range(40)
    ]
    file = bases.shop("bert bare").path().with_suffix(".jsonl")
    file.write_text("\n".join(map(json.dumps, rows)))
    return {"data": file, "max_drop": {"cola": 15.0, "mnli": 15.0}}


_compare = compare._compare


def _outputs_alone(spreads: Spreads, kind: Literal["module", "output"], *rest: Any) -> None:
    """No module is compared."""
    if kind == "output":
        _compare(spreads, kind, *rest)


MUTANTS = (
    Mutant(
        "what each module computes",
        _bundle("bert"),
        ("eptx.exporter.graph.edited.EditedGraph.name_modules", _named_wrongly),
        (f"{COMPARISON}._compare", _outputs_alone),
        "first drifting module bert.encoder.layer.0.attention.self",
    ),
    Mutant(
        "what the outputs are",
        _bundle("heads"),
        (f"{EXPORT}.put_heads", _no_biases),
        (f"{COMPARISON}._compare_outputs", _nothing),
        "task_heads",
    ),
    Mutant(
        "which outputs there are",
        _bundle("heads"),
        (f"{EXPORT}.put_heads", _no_hidden_states),
        ("eptx.exporter.validation.run.check_signature", lambda *arguments: []),
        "output last_hidden_state: the bundle has no such output",
    ),
    Mutant(
        "which modules there are",
        _bundle("bert"),
        ("eptx.exporter.graph.edited.EditedGraph.name_modules", _a_module_less),
        ("eptx.exporter.validation.run.check_signature", lambda *arguments: []),
        f"module {_DOWN}: the adapter adapts it",
    ),
    Mutant(
        "what the tables hold",
        _bundle("bert"),
        ("eptx.calibration.export.store", _padding_moved),
        ("eptx.exporter.validation.contents.compare.compare_tensors", lambda *arguments: []),
        "bert.embeddings.word_embeddings.weight",
    ),
    Mutant(
        "what the manifest says",
        _bundle("bert"),
        ("eptx.exporter.steps.load.longest", lambda graph: (_longest(graph) or 0) - 1),
        ("eptx.exporter.validation.contents.compare.compare_files", lambda *arguments, **named: []),
        "eptx.json: max_length",
    ),
    Mutant(
        "which experts a task uses",
        _bundle("heads"),
        ("eptx.exporter.graph.edited.EditedGraph.name_modules", _all_experts),
        (f"{COMPARISON}._check_experts", _nothing),
        "its router chooses experts",
    ),
    Mutant(
        "which task is inferred",
        _inferring,
        ("eptx.exporter.methods.ept.method.add_task_used", _least_similar),
        (f"{COMPARISON}._check_tasks", _nothing),
        "infers task",
    ),
    Mutant(
        "whether the adapter has an effect",
        _without_effect,
        ("eptx.exporter.methods.constant.attach_updates", _no_update),
        ("eptx.runtime.validation.comparison.results.TaskReport.undecided", None),
        "the adapter's own effect",
    ),
    Mutant(
        "whether quantized weights are the base's",
        _bundle("int8"),
        ("eptx.calibration.quantize.one_product.dynamic_int8", _codes_off),
        (f"{QUANTIZED}.QuantizedWeights.compare", _nothing),
        "its quantized weight: output feature 3: its scale is",
    ),
    Mutant(
        "what quantizing loses",
        _bundle("int8 static"),
        ("eptx.calibration.quantize.one_product.static_int8", _wide),
        ("eptx.exporter.validation.run.accuracy_drops", lambda *arguments: []),
        "the budget is 15",
        _with_rows,
    ),
)
#: Checks whose break the honest export cannot be told from: it has no effect either.
_NEVER_PASSES = ("whether the adapter has an effect",)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.check)
def test_only_this_check_notices(bases: Bases, mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, options = bases.shop("bert"), mutant.options(bases)
    with monkeypatch.context() as patch:
        patch.setattr(*mutant.broken)
        broken = mutant.make(bases)
    report = shop.validate(broken, **options)
    assert not report.passed
    assert mutant.names in report.reason
    with monkeypatch.context() as patch:
        patch.setattr(*mutant.off)
        assert shop.validate(broken, **options).passed
    if mutant.check not in _NEVER_PASSES:
        honest = shop.validate(mutant.make(bases), **options)
        assert honest.passed, honest.reason
