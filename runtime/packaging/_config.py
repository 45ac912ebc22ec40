"""Triton's ``ModelConfig`` of a bundle."""

from __future__ import annotations

import json
from dataclasses import asdict

from eptx.bundle import Manifest, TensorSpec
from eptx.manifest.names import MODEL_FILE
from eptx.runtime.packaging._text_format import Message, Name, Value

_TYPES = {
    "bool": Name("TYPE_BOOL"),
    "int32": Name("TYPE_INT32"),
    "int64": Name("TYPE_INT64"),
    "float16": Name("TYPE_FP16"),
    "float32": Name("TYPE_FP32"),
    "float64": Name("TYPE_FP64"),
}
_QUEUE_DELAY = 2_000  # microseconds; a batch of a small encoder takes several times as long
_WARM_UP_LENGTH = 8  # tokens, or whatever else may vary


def model_config(manifest: Manifest, name: str, max_batch: int, instances: int) -> Message:
    """The fields of a ``ModelConfig`` for the ONNX Runtime backend.

    Args:
        manifest: of a bundle that does not generate.
        name: the model's name, which is its folder's.
        max_batch: how many rows may be computed together.
        instances: how many sessions to open on each device.
    """
    batched = has_batch(manifest)
    kind = Name("KIND_GPU" if manifest.provider == "cuda" else "KIND_CPU")
    config: dict[str, Value] = {
        "name": name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "default_model_filename": MODEL_FILE,
        "max_batch_size": max_batch if batched else 0,
        "input": [_tensor(spec, batched) for spec in manifest.inputs],
        "output": [_tensor(spec, batched) for spec in manifest.outputs],
        "version_policy": {"latest": {"num_versions": 1}},
        "instance_group": [{"kind": kind, "count": instances}],
        "model_warmup": [_warm_up(manifest, batched)],
        "parameters": [
            {"key": "eptx.tasks", "value": {"string_value": _tasks(manifest)}},
            {"key": "eptx.onnxruntime", "value": {"string_value": _onnxruntime(manifest)}},
            {"key": "eptx.text", "value": {"string_value": json.dumps(manifest.text and asdict(manifest.text))}},
        ],
    }
    if batched and max_batch > 1 and not manifest.rows_share_route:
        config["dynamic_batching"] = {
            "preferred_batch_size": sorted({max(1, max_batch // 4), max(1, max_batch // 2), max_batch}),
            "max_queue_delay_microseconds": _QUEUE_DELAY,
        }
    return config


def _onnxruntime(manifest: Manifest) -> str:
    """The first release of ONNX Runtime that loads the model; empty where that is not known."""
    return "" if manifest.onnxruntime is None else manifest.onnxruntime.version


def has_batch(manifest: Manifest) -> bool:
    """Whether the first dimension of every input and output is the number of rows, which may vary."""
    first = {spec.shape[0] if spec.shape else None for spec in (*manifest.inputs, *manifest.outputs)}
    return len(first) == 1 and isinstance(first.pop(), str)


def _tensor(spec: TensorSpec, batched: bool) -> Message:
    """A tensor without its batch. A tensor [rows] is sent as [rows, 1], since ``dims`` may not be empty."""
    dims = [size if isinstance(size, int) else -1 for size in spec.shape[1 if batched else 0 :]]
    field: dict[str, Value] = {"name": spec.name, "data_type": _TYPES[spec.dtype], "dims": dims or [1]}
    if not dims:
        field["reshape"] = {"shape": ()}
    return field


def _warm_up(manifest: Manifest, batched: bool) -> Message:
    """One row of zeros, with which ONNX Runtime plans and allocates before the first request."""
    length = min(_WARM_UP_LENGTH, manifest.max_length or _WARM_UP_LENGTH)
    inputs: list[Value] = []
    for spec in manifest.inputs:
        sizes = [size if isinstance(size, int) else length if i else 1 for i, size in enumerate(spec.shape)]
        dims = (sizes[1:] or [1]) if batched else sizes
        inputs.append({"key": spec.name, "value": {"data_type": _TYPES[spec.dtype], "dims": dims, "zero_data": True}})
    return {"name": "one row", "batch_size": 1, "inputs": inputs}


def _tasks(manifest: Manifest) -> str:
    """The tasks as JSON: name -> its value of ``task_id``, how many logits count, their names and what they mean."""
    fields = ("id", "labels", "label_names", "problem_type")
    return json.dumps({task.name: {field: getattr(task, field) for field in fields} for task in manifest.tasks})
