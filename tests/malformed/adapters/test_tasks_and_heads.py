"""Names of tasks, and task heads."""

from __future__ import annotations

import numpy as np

from tests.malformed.breaks import (
    HEADS,
    config,
    cut,
    drop,
    fifo,
    heads,
    put,
    rename,
    setting,
)
from tests.malformed.scene import Case, Cli, Scene, Table, cases, nothing, refuses_export

Q = "layer.0.query"

TASKS: Table = {
    "too many names": Case(
        nothing, 2, "--tasks names 4 tasks; the adapter has 3", "--mode dynamic --top-k 2 --tasks a,b,c,d"
    ),
    "a name twice": Case(nothing, 2, "two tasks have the same name", "--mode dynamic --top-k 2 --tasks cola,mnli,cola"),
    "an empty name": Case(nothing, 2, "'' cannot be the name of a task", "--mode dynamic --top-k 2 --tasks cola,,mnli"),
    "a reserved name": Case(nothing, 2, "'base' is reserved", "--mode dynamic --top-k 2 --tasks cola,base,mnli"),
    "the other reserved name": Case(nothing, 2, "'auto' is reserved", "--mode dynamic --top-k 2 --tasks auto"),
    "names that are not the heads'": Case(
        nothing, 3, "has a head for 'cola'; the tasks are", "--mode dynamic --top-k 2 --tasks x,y,z"
    ),
    "saved names twice": Case(config("ept", tasks=["a", "b", "a"]), 3, "two tasks have the same name"),
    "saved name reserved": Case(config("ept", tasks=["cola", "mnli", "base"]), 3, "'base' is reserved"),
    "saved name with a line break": Case(
        config("ept", tasks=["co\nla", "mnli", "stsb"]), 3, "'co\\nla' cannot be the name of a task"
    ),
    "saved names too many": Case(config("ept", tasks=list("abcd")), 3, "names 4 tasks; the adapter has 3"),
    "saved names of numbers": Case(config("ept", tasks=[1, 2, 3]), 3, "tasks must be a list of names"),
    "saved names a string": Case(config("ept", tasks="abc"), 3, "tasks must be a list of names, found 'abc'"),
    "saved names a number": Case(config("ept", tasks=3), 3, "tasks must be a list of names, found 3"),
    "TuckA's saved names": Case(config("tucka", tasks={"a": 1}), 3, "tasks must be a list of names", adapters="tucka"),
    "LoRA folder of a reserved name": Case(
        lambda s: s.lora2.rename(s.root / "base_"), 3, "no such adapter", adapters="lora lora2"
    ),
    "LoRA names too many": Case(
        nothing, 2, "--tasks names 2 tasks; the adapter has 1", "--mode conditioned --tasks a,b", adapters="lora"
    ),
}

TASK_HEADS: Table = {
    "file empty": Case(lambda s: (s.ept / HEADS).write_bytes(b""), 3, f"{HEADS}: truncated"),
    "file cut": Case(cut(f"ept/{HEADS}", -4), 3, f"{HEADS}: damaged safetensors file"),
    "file a FIFO": Case(fifo(f"ept/{HEADS}"), 3, f"{HEADS}: not a regular file"),
    "no weight": Case(heads(drop("cola.weight")), 3, "cola.bias has no cola.weight"),
    "no weights at all": Case(heads(drop("cola.weight", "mnli.weight", "stsb.weight")), 3, "expected <task>.weight"),
    "other tensors": Case(heads(put("cola.scale", np.ones(2, "f4"))), 3, "expected <task>.weight and <task>.bias"),
    "weight of one axis": Case(heads(put("cola.weight", lambda w: w[0])), 3, "cola.bias has shape [2], weight [14]"),
    "weight and bias of no axes": Case(
        heads(lambda t: t.update({"cola.weight": np.ones((), "f4"), "cola.bias": np.ones((), "f4")})),
        3,
        "every <task>.weight must be [labels, hidden]",
    ),
    "no labels": Case(
        heads(lambda t: t.update({"cola.weight": t["cola.weight"][:0], "cola.bias": t["cola.bias"][:0]})),
        3,
        "must be [labels, hidden]",
    ),
    "bias of other labels": Case(
        heads(put("cola.bias", lambda b: b[:1])), 3, "cola.bias has shape [1], weight [2, 14]"
    ),
    "different widths": Case(heads(put("cola.weight", lambda w: w[:, :13])), 3, "vectors of different widths"),
    "another width than the base": Case(
        heads(lambda t: [t.update({k: t[k][:, :8]}) for k in t if k.endswith("weight")]),
        3,
        "read 8 features; the base model has 14",
    ),
    "NaN": Case(heads(put("mnli.bias", setting(1, np.nan))), 3, "mnli.bias holds NaN"),
    "unknown task": Case(heads(rename("cola", "rte")), 3, "has a head for 'rte'; the tasks are cola, mnli, stsb"),
    "unknown pooling": Case(config("ept", task_head_pooling="max"), 3, "task_head_pooling is 'max'"),
    "pooling of another type": Case(config("ept", task_head_pooling=["first"]), 3, "task_head_pooling is ['first']"),
    "label names a list": Case(config("ept", task_labels=["a"]), 3, "task_labels must map"),
    "label names too few": Case(config("ept", task_labels={"cola": ["no"]}), 3, "has 1 names for 2 labels"),
    "label names of nobody": Case(config("ept", task_labels={"rte": ["no"]}), 3, "names 'rte', which has no head"),
    "label names that are numbers": Case(config("ept", task_labels={"cola": [0, 1]}), 3, "must be a list of names"),
    "label names with escapes": Case(
        config("ept", task_labels={"cola": ["a", "\x1b[2J"]}), 3, "must be a list of names"
    ),
    "static task without a head": Case(
        heads(drop("mnli.weight", "mnli.bias")), 2, "task 'mnli' has no head", "--mode static --task mnli --top-k 2"
    ),
}


@cases(ept=TASKS, ept__heads=TASK_HEADS)
def test_export(scene: Scene, cli: Cli, adapter: str, case: Case) -> None:
    refuses_export(scene, cli, adapter, case)
