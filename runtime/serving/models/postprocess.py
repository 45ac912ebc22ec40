"""From a session's outputs to the answer of the protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from eptx.bundle import Manifest, TensorSpec
from eptx.errors import RequestError
from eptx.manifest.names import MULTI_LABEL
from eptx.runtime.outputs import Outputs
from eptx.runtime.serving.errors import VERSION
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.models.preprocess import Preprocessed
from eptx.runtime.serving.protocol.infer import InferRequest, encode_response
from eptx.runtime.serving.protocol.parameters import read_flag
from eptx.runtime.serving.protocol.tensors import Value
from eptx.runtime.spans import END, START, as_json, kind_of_bundle

#: Outputs beside those of the graph: each row's best label (BYTES [batch]; a JSON list if there are several labels, or
#: one for each token), its probability (FP32 [batch]; NaN where it means nothing), every label's probability (FP32 in
#: the shape of the logits; NaN likewise), and the row's task (BYTES [batch]).
LABEL, SCORE, SCORES, TASK = "label", "score", "scores", "task"
#: Of models that say something of every token (BYTES [batch]): a row's entities, a JSON list; its answer, an object.
ENTITIES, ANSWER = "entities", "answer"
#: The parameter of a request that adds `LABEL` to its outputs.
LABELS = "labels"
_LOGITS = "logits"
#: The outputs of a graph that labels and answers are read from.
_READ = (_LOGITS, START, END)
#: Bytes of the outputs of one run, and numbers of one JSON answer, which takes ten times as many bytes.
_RUN_BYTES, _MOST_NUMBERS = 512 << 20, 2_000_000


def fit_limits(limits: Limits, manifest: Manifest) -> Limits:
    """Lowers ``max_tokens`` so that the outputs of one run fit into memory: a language model's logits are large."""
    token = sum(_size(spec, 1, 1) * np.dtype(spec.dtype).itemsize for spec in manifest.outputs)
    return replace(limits, max_tokens=max(1, min(limits.max_tokens, _RUN_BYTES // max(token, 1))))


def choose_outputs(request: InferRequest, manifest: Manifest, inputs: Preprocessed) -> tuple[str, ...]:
    """The outputs to send: those that the request names; else, for texts, labels (or entities, or an answer) and the
    logits that they were read from; else all of the graph.

    Raises:
        RequestError: the bundle has no such output, or they are too large for JSON.
    """
    graph = tuple(spec.name for spec in manifest.outputs)
    own = own_outputs(manifest)
    if request.outputs is None:
        names = (*own, *(name for name in graph if name in _READ)) if inputs.text and len(own) > 1 else graph
        several = any(task.problem_type == MULTI_LABEL for task in manifest.tasks)
        left_out = {*(() if several else (SCORES,)), *((LABEL, SCORE) if ENTITIES in own else ())}
        names = tuple(name for name in names if name not in left_out)
    else:
        names = tuple(request.outputs)
    if read_flag(request.parameters, LABELS, "the request") and LABEL not in names:
        names = (*names, LABEL)
    for name in names:
        if name not in graph and name not in own:
            raise RequestError(f"no output {name[:60]!r}; this bundle has {', '.join((*graph, *own))}")
    _check_json(request, [spec for spec in manifest.outputs if spec.name in names], inputs)
    return names


def own_outputs(manifest: Manifest) -> tuple[str, ...]:
    """The outputs that a bundle has beside those of its graph."""
    kind = kind_of_bundle(manifest)
    if kind == "answers":
        return (ANSWER, TASK)
    if all(spec.name != _LOGITS for spec in manifest.outputs):
        return (TASK,)
    labelled = any(task.problem_type for task in manifest.tasks)
    return (*([ENTITIES] if kind else []), LABEL, SCORE, *([SCORES] if labelled else []), TASK)


def _check_json(request: InferRequest, outputs: Sequence[TensorSpec], inputs: Preprocessed) -> None:
    numbers = sum(_size(s, inputs.rows, inputs.length) for s in outputs if not request.is_binary(s.name))
    if numbers > _MOST_NUMBERS:
        raise RequestError(
            f"the answer would hold {numbers} numbers as JSON; ask for binary data, fewer outputs or fewer rows"
        )


def _size(spec: TensorSpec, rows: int, length: int) -> int:
    """The elements of an output; its dimensions without a size, but the first, count tokens."""
    return rows * math.prod(size if isinstance(size, int) else length for size in spec.shape[1:])


def encode_answer(
    model: str, request: InferRequest, outputs: Outputs, names: Sequence[str]
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON where binary data follow."""
    head: dict[str, Any] = {"model_name": model, "model_version": VERSION}
    if request.id is not None:
        head["id"] = request.id
    return encode_response(head, {name: _value(outputs, name) for name in names}, request)


def _value(outputs: Outputs, name: str) -> Value:
    if name in outputs:
        return outputs[name]
    if name == TASK:
        return outputs.tasks
    if name == SCORE:
        return np.array([score if isinstance(score, float) else math.nan for score in outputs.scores], np.float32)
    if name == SCORES:
        found = np.full(outputs[_LOGITS].shape, math.nan, np.float32)
        for row, likely in zip(found, outputs.probabilities, strict=True):
            if likely is not None:
                row[..., : likely.shape[-1]] = likely
        return found
    if name == ENTITIES:
        return [_text(found if found is None else [as_json(entity) for entity in found]) for found in outputs.entities]
    if name == ANSWER:
        return ["" if found is None else _text(as_json(found)) for found in outputs.answers]
    return [_text(label) for label in outputs.labels]


def _text(label: Any) -> str:
    if label is None:
        return ""
    return json.dumps(label, ensure_ascii=False) if isinstance(label, tuple | list | dict) else str(label)
