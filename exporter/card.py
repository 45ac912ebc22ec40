"""The model card of a bundle: its tasks, its mode, and how to run it."""

from __future__ import annotations

from eptx.bundle import Manifest, Task

_MODES = {
    "static": "one task, folded into the weights",
    "conditioned": "every row of a batch names its task (`task_id`)",
    "dynamic": "the adapter's router runs inside the graph",
}


def model_card(manifest: Manifest) -> str:
    """The text of a bundle's README.md, the same for the same manifest."""
    tasks = "\n".join(f"| {task.id} | {task.name} | {_labels(task)} |" for task in manifest.tasks)
    inputs = "\n".join(f"- `{spec.name}`: {spec.dtype} {_shape(spec.shape)}" for spec in manifest.inputs)
    outputs = "\n".join(f"- `{spec.name}`: {spec.dtype} {_shape(spec.shape)}" for spec in manifest.outputs)
    return f"""# {manifest.model_type or "ONNX"} with a {manifest.method.upper()} adapter

An [eptx](https://pypi.org/project/eptx) bundle, mode **{manifest.mode}**: {_MODES[manifest.mode]}.
Weights are stored as {manifest.precision}.

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

## C++ and Node

`model.onnx` is a complete ONNX model: its operators of domain `ai.eptx` carry their own bodies, so any ONNX Runtime
loads it.

```cpp
Ort::Session session(env, "model.onnx", Ort::SessionOptions{{}});
```

```js
const session = await require("onnxruntime-node").InferenceSession.create("model.onnx");
```
{_task_id(manifest)}"""


def _labels(task: Task) -> str:
    if task.label_names:
        return ", ".join(task.label_names)
    return "" if task.labels is None else str(task.labels)


def _shape(shape: tuple[str | int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _notes(manifest: Manifest) -> str:
    notes = []
    if any(task.name == "base" for task in manifest.tasks):
        notes.append("Task `base` switches the adapter off for its row.")
    if manifest.task_inference:
        notes.append("`task_id` -1 lets the model infer the task; `task_id_used` says which it took.")
    if manifest.routing == "batch":
        notes.append("Routing `batch`: one route for the whole batch, so a row's result depends on its neighbours.")
    if manifest.routing == "row":
        notes.append("Routing `row`: every row has its own route, whatever else is in the batch.")
    return "\n" + "\n".join(notes) + "\n" if notes else ""


def _python(manifest: Manifest) -> str:
    names = [task.name for task in manifest.tasks if task.name != "base"]
    takes_task = any(spec.name == "task_id" for spec in manifest.inputs)
    arguments = f', task="{names[0]}"' if takes_task else ""
    if any(spec.name == "input_ids" for spec in manifest.inputs):
        return f'outputs = session.run(["A sentence."]{arguments})'
    feeds = ", ".join(f'"{spec.name}": ...' for spec in manifest.inputs if spec.name != "task_id")
    return f"outputs = session.run({{{feeds}}}{arguments})"


def _task_id(manifest: Manifest) -> str:
    if not any(spec.name == "task_id" for spec in manifest.inputs):
        return ""
    return "\nFeed `task_id` one id of the table above per row of the batch.\n"
