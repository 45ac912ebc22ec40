"""The model card of a bundle: its tasks, its mode, and how to run it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from eptx.bundle import Manifest, Quantization, Task, TensorSpec
from eptx.exporter.methods.method import method_of
from eptx.manifest.names import BASE_TASK, CROSS, PAST, PRESENT, TASK_ID

_MODES = {
    "static": "one task, folded into the weights",
    "conditioned": "every row of a batch names its task (`task_id`)",
    "dynamic": "the adapter's router runs inside the graph",
}

#: How a product is stored, by its scheme.
_PRODUCTS = {
    "fp32": "float32",
    "fp16": "float16",
    "int8": "8 bits, a scale for each output feature; activations are rounded to 8 bits as they come",
    "int8-static": "8 bits, a scale for each output feature; activations are rounded to 8 bits in measured ranges",
    "int8-blocks": "8 bits, a scale for every 128 inputs; activations are rounded to 8 bits in blocks",
    "int4-blocks": "4 bits, a scale for every 32 inputs; activations are rounded to 8 bits in blocks",
}
_TABLES = {"fp32": "float32", "fp16": "float16", "int8": "8 bits, a scale for each row"}

_PLAIN = """## C++ and Node

`model.onnx` is a complete ONNX model: its operators of domain `ai.eptx` carry their own bodies, so ONNX Runtime
loads it{from_on}.

```cpp
Ort::Session session(env, "model.onnx", Ort::SessionOptions{});
```

```js
const session = await require("onnxruntime-node").InferenceSession.create("model.onnx");
```
"""
_GENAI = """## ONNX Runtime GenAI

This folder is a model folder of ONNX Runtime GenAI, which needs nothing of eptx to run it:

```python
import numpy as np
import onnxruntime_genai as og

model = og.Model("path/to/this/folder")
tokenizer, params = og.Tokenizer(model), og.GeneratorParams(model)
params.set_search_options(max_length=256)
generator = og.Generator(model, params)
{chosen}generator.append_tokens(tokenizer.encode("Once upon a time"))
while not generator.is_done():
    generator.generate_next_token()
print(tokenizer.decode(generator.get_sequence(0)))
```
"""
#: GenAI does not hold the array, so a variable must.
_TASK_INPUT = """task_id = np.array([{id}])  # one for each row; keep it while generating
generator.set_model_input("task_id", task_id)
"""
_SEQ2SEQ = """## Elsewhere

`encoder.onnx` reads the prompt once; what it gives as `cross.*` goes into every call of `model.onnx`, which makes one
token after the other from the token that `eptx.json` calls `start`. What it gives as `present.*` goes into the next
call as `past_key_values.*`.
"""


def model_card(manifest: Manifest) -> str:
    """The text of a bundle's README.md, the same for the same manifest."""
    tasks = "\n".join(f"| {task.id} | {task.name} | {_labels(task)} |" for task in manifest.tasks)
    inputs, outputs = _tensors(manifest.inputs), _tensors(manifest.outputs)
    return f"""# {manifest.model_type or "ONNX"} with a {manifest.method.upper()} adapter

An [eptx](https://pypi.org/project/eptx) bundle, mode **{manifest.mode}**: {_MODES[manifest.mode]}.
{_stored(manifest)}

| id | task | labels |
|---|---|---|
{tasks}

Inputs:

{inputs}

Outputs:

{outputs}
{_notes(manifest)}
## Python

```python
from eptx import Session

session = Session("path/to/this/folder")
{_python(manifest)}
```

{_elsewhere(manifest)}"""


def _stored(manifest: Manifest) -> str:
    """How the weights are stored."""
    said = manifest.quantization
    if said is None or not (said.products or said.embeddings):
        return f"Weights are stored as {manifest.precision}.{_budget(said)}"
    lines = [
        f"- {count} {what}{'' if count == 1 else 's'}: {words.get(scheme, scheme)}"
        for what, schemes, words in (("product", said.products, _PRODUCTS), ("table", said.embeddings, _TABLES))
        for scheme, count in sorted(Counter(schemes.values()).items())
    ]
    head = f"Weights are quantized ({manifest.precision}); the adapter's own are float16:"
    return "\n".join([head, "", *lines, _budget(said)]).rstrip()


def _budget(said: Quantization | None) -> str:
    """What may be lost by that."""
    if said is None or not said.budget:
        return ""
    each = ", ".join(f"{task} {points:g}{_of(said, task)}" for task, points in said.budget.items())
    return f"\nThe most points that a task may lose against float32 by that: {each}."


def _of(said: Quantization, task: str) -> str:
    return f" of {said.metrics[task]}" if task in said.metrics else ""


def _tensors(specs: Sequence[TensorSpec]) -> str:
    """A line each; of a cache, which has two for every layer, the first one's."""
    kept = [spec for spec in specs if not _is_cache(spec) or spec.name.endswith(".0.key")]
    lines = [f"- `{spec.name}`: {spec.dtype} {_shape(spec.shape)}" for spec in kept]
    return "\n".join(
        f"{line}, and so on for keys and values of every layer" if ".0.key" in line else line for line in lines
    )


def _is_cache(spec: TensorSpec) -> bool:
    return spec.name.startswith((PAST, PRESENT, CROSS))


def _elsewhere(manifest: Manifest) -> str:
    """How to run it without eptx."""
    if manifest.generation is None:
        needed = manifest.onnxruntime
        from_on = "" if needed is None else f" from {needed.version} on"
        return f"{_PLAIN.replace('{from_on}', from_on)}{_task_id(manifest)}"
    if manifest.generation.kind == "encoder-decoder":
        return _SEQ2SEQ
    inputs = _TASK_INPUT.format(id=manifest.tasks[0].id)
    chosen = inputs if any(spec.name == TASK_ID for spec in manifest.inputs) else ""
    return _GENAI.format(chosen=chosen)


def _labels(task: Task) -> str:
    if task.label_names:
        return ", ".join(task.label_names)
    return "" if task.labels is None else str(task.labels)


def _shape(shape: tuple[str | int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _notes(manifest: Manifest) -> str:
    notes = []
    if any(task.name == BASE_TASK for task in manifest.tasks):
        notes.append("Task `base` switches the adapter off for its row.")
    if manifest.embedding is not None:
        notes.append("`embedding` is each row's vector, made as the base's sentence-transformers folder says.")
    if manifest.image is not None:
        notes.append("An image becomes `pixel_values` by the steps of its processor, which `eptx.json` has as `image`.")
    if manifest.task_inference:
        notes.append("`task_id` -1 lets the model infer the task; `task_id_used` says which it took.")
    notes += method_of(manifest.method).notes(manifest)
    return "\n" + "\n".join(notes) + "\n" if notes else ""


def _python(manifest: Manifest) -> str:
    names = [task.name for task in manifest.tasks if task.name != BASE_TASK]
    takes_task = any(spec.name == TASK_ID for spec in manifest.inputs)
    arguments = f', task="{names[0]}"' if takes_task else ""
    if manifest.generation is not None:
        return f'answer = session.generate("Once upon a time"{arguments}).texts[0]'
    if manifest.image is not None and len(manifest.inputs) == 1 + takes_task:
        return f'outputs = session.run(["photo.jpg"]{arguments})  # pip install "eptx[images]"'
    if any(spec.name == "input_ids" for spec in manifest.inputs):
        return f'outputs = session.run(["A sentence."]{arguments})'
    feeds = ", ".join(f'"{spec.name}": ...' for spec in manifest.inputs if spec.name != TASK_ID)
    return f"outputs = session.run({{{feeds}}}{arguments})"


def _task_id(manifest: Manifest) -> str:
    if not any(spec.name == TASK_ID for spec in manifest.inputs):
        return ""
    return "\nFeed `task_id` one id of the table above per row of the batch.\n"
