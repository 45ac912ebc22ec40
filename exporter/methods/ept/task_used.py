"""Which task a row is of, where the caller does not say (``task_id`` -1 in dynamic EPT)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eptx.exporter.graph.editor import GraphEditor
from eptx.manifest.names import TASK_ID_USED


def add_task_used(editor: GraphEditor) -> ir.Value:
    """Adds the output ``task_id_used`` int64 [batch]: the given id, or for -1 the task that the input resembles most.

    Every module compares its own input with its own task embeddings; the sum of what they see decides.
    """
    total = editor.node("Sum", editor.similarities)[0]
    inferred = editor.node("ArgMax", [total], axis=1, keepdims=0)[0]
    given = editor.task_id()
    unknown = editor.node("Less", [given, editor.constant("task_id.zero", np.array(0))])[0]
    used = editor.node("Where", [unknown, inferred, given])[0]
    editor.add_output(TASK_ID_USED, used, ir.DataType.INT64)
    return used
