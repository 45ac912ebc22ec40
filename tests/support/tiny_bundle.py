"""Small bundles made by hand, for tests that need a bundle but no exporter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from eptx.bundle import (
    Bundle,
    BundleWriter,
    Manifest,
    ModuleOutput,
    OnnxRuntime,
    Operators,
    Sources,
    Task,
    TensorSpec,
)

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "film", "book", "is", "not", "the"]
TASKS = (
    Task("sst2", 0, 2, ("negative", "positive"), "single_label_classification"),
    Task("mnli", 1, 3, ("entailment", "neutral", "contradiction"), "single_label_classification"),
    Task("stsb", 2, 1, None, "regression"),
    Task("base", 3, 0),
)
#: The same, of which two have fewer tokens than the model.
NARROW = tuple(replace(task, vocab_size={"mnli": 10, "base": 8}.get(task.name)) for task in TASKS)
HIDDEN, LABELS = 4, 3

_GRAPH = """
<ir_version: 8, opset_import: ["" : 17{import}]>
tiny (int64[batch, length] input_ids, int64[batch, length] attention_mask,
      int64[batch, length] token_type_ids{input})
  => (float[batch, length, 4] last_hidden_state, float[batch, 3] logits{output})
  <float[12, 4] words, float[2, 4] types, float[4, 4, 3] heads, int64[1] one, int64[1] last>
{{
  word = Gather (words, input_ids)
  kind = Gather (types, token_type_ids)
  last_hidden_state = Add (word, kind)
  mask = Cast <to = 1> (attention_mask)
  mask3 = Unsqueeze (mask, last)
  masked = Mul (last_hidden_state, mask3)
  total = ReduceSum <keepdims = 0> (masked, one)
  count = ReduceSum <keepdims = 1> (mask, one)
  pooled = Div (total, count)
  {head}
}}
"""
_CONDITIONED = (
    _GRAPH.format(
        **{
            "import": ', "ai.eptx" : 1',
            "input": ", int64[batch] task_id",
            "output": ", int64[batch] task_id_used",
            "head": """zero = Constant <value = int64[1] {0}> ()
  task_id_used = Max (task_id, zero)
  logits = ai.eptx.Head (pooled, heads, task_id_used)""",
        }
    )
    + """
<domain: "ai.eptx", opset_import: ["" : 17]>
Head (x, heads, task) => (y)
{
  axis = Constant <value = int64[1] {1}> ()
  w = Gather (heads, task)
  row = Unsqueeze (x, axis)
  product = MatMul (row, w)
  y = Squeeze (product, axis)
}
"""
)
_STATIC = _GRAPH.format(
    **{
        "import": "",
        "input": "",
        "output": "",
        "head": """index = Constant <value = int64 {1}> ()
  w = Gather (heads, index)
  logits = MatMul (pooled, w)""",
    }
)


def weights() -> dict[str, np.ndarray]:
    """The model's initializers."""
    rng = np.random.default_rng(0)
    heads = rng.standard_normal((4, HIDDEN, LABELS)).astype(np.float32)
    for task in TASKS:
        heads[task.id, :, task.labels :] = 0
    return {
        "words": rng.standard_normal((len(VOCABULARY), HIDDEN)).astype(np.float32),
        "types": rng.standard_normal((2, HIDDEN)).astype(np.float32),
        "heads": heads,
        "one": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
    }


def expected_logits(ids: np.ndarray, mask: np.ndarray, types: np.ndarray, task: np.ndarray) -> np.ndarray:
    """What the model computes, in numpy."""
    w = weights()
    hidden = (w["words"][ids] + w["types"][types]) * mask[..., None]
    pooled = hidden.sum(1) / mask.sum(1, keepdims=True)
    return np.einsum("bh,bhl->bl", pooled, w["heads"][task])


def tiny_model(mode: str = "conditioned") -> onnx.ModelProto:
    """The graph: a mean of word vectors, and a head for each task."""
    model = onnx.parser.parse_model(_STATIC if mode == "static" else _CONDITIONED)
    del model.graph.initializer[:]
    for name, value in weights().items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def tiny_manifest(mode: str = "conditioned", **changes: Any) -> Manifest:
    """The manifest that fits `tiny_model`."""
    text = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [TensorSpec(name, "int64", ("batch", "length")) for name in text]
    outputs = [
        TensorSpec("last_hidden_state", "float32", ("batch", "length", HIDDEN)),
        TensorSpec("logits", "float32", ("batch", LABELS)),
    ]
    if mode != "static":
        inputs.append(TensorSpec("task_id", "int64", ("batch",)))
        outputs.append(TensorSpec("task_id_used", "int64", ("batch",)))
    fields: dict[str, Any] = {
        "generator": "eptx test",
        "mode": mode,
        "method": "ept",
        "model_type": "tiny",
        "precision": "fp32",
        "provider": "cpu",
        "tasks": TASKS[1:2] if mode == "static" else TASKS,
        "inputs": tuple(inputs),
        "outputs": tuple(outputs),
        "sources": Sources(True, False, 2),
        "fingerprints": {"base": "sha256:0", "adapter": "sha256:1"},
        "modules": {"pooler": ModuleOutput("pooled", (0, HIDDEN), False)},
        "onnxruntime": OnnxRuntime("1.15", 8, 17),
        "operators": None if mode == "static" else Operators(),
        "vocab_size": len(VOCABULARY),
        "max_length": 16,
        "task_inference": mode == "dynamic",
    }
    return Manifest(**{**fields, **changes})


def write_tiny(target: Path, mode: str = "conditioned", *, tokenizer: bool = False, **changes: Any) -> Bundle:
    """Writes a tiny bundle through `BundleWriter`."""
    with BundleWriter(target) as writer:
        onnx.save(
            tiny_model(mode),
            writer.folder / "model.onnx",
            save_as_external_data=True,
            location="model.onnx.data",
            size_threshold=64,
        )
        writer.write("config.json", '{"type_vocab_size": 2}\n')
        if tokenizer:
            writer.write("tokenizer.json", _tokenizer_json())
        return writer.finish(tiny_manifest(mode, **changes))


def _tokenizer_json() -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.enable_padding(length=10)  # as sentence-transformers models have it; eptx must not use it
    tokenizer.enable_truncation(3)
    return tokenizer.to_str()
