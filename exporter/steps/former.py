"""A bundle taken apart again: the graphs of its base, and the adapter of each task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from eptx._one_line import one_line, some
from eptx.bundle import Bundle
from eptx.bundle.genai_config import GENAI_CONFIG
from eptx.bundle.onnx_scan import scan_onnx
from eptx.errors import BundleError, NotSupportedError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.names import in_encoder
from eptx.exporter.bases.outline import fill
from eptx.exporter.bundle.record import GraphRecord, Record, base_file, read_record
from eptx.exporter.bundle.write import COMPANIONS
from eptx.exporter.methods.method import Method, TaskByTask, methods
from eptx.files.strict_json import read_json_object
from eptx.manifest.names import BASE_TASK, MODEL_FILE

#: What `store` calls a weight that it has stored as float16.
_HALF = ".fp16"
_AGAIN = "export base and adapters again"


@dataclass(frozen=True)
class Former:
    """What a conditioned bundle was made of.

    Attributes:
        bundle: the bundle.
        record: what its export noted.
        method: of its adapters.
        task_by_task: the same, as something whose tasks are apart.
        graphs: of the base, without an adapter in them.
        adapters: one for each task, by id.
    """

    bundle: Bundle
    record: Record
    method: Method
    task_by_task: TaskByTask
    graphs: list[BaseGraph]
    adapters: list[Adapter]

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks, by id, without the base's."""
        return tasks_of(self.bundle)


def tasks_of(bundle: Bundle) -> list[str]:
    """The names of a bundle's tasks, by id, without the base's."""
    return [task.name for task in bundle.manifest.tasks if task.name != BASE_TASK]


def take_apart(bundle: Bundle) -> Former:
    """Takes a bundle apart.

    Raises:
        NotSupportedError: its tasks are not apart in it.
        BundleError: its files contradict each other.
    """
    manifest, record = bundle.manifest, read_record(bundle)
    method = next((method for method in methods() if method.name == manifest.method), None)
    if method is None or method.task_by_task is None or manifest.mode != "conditioned" or record is None:
        able = " and ".join(method.title for method in methods() if method.task_by_task is not None)
        raise NotSupportedError(
            f"{bundle.path.name} is a {manifest.mode} {manifest.method} bundle: tasks are added to and removed from "
            f"conditioned {able} bundles only; {_AGAIN}"
        )
    tasks = tasks_of(bundle)
    if len(record.folders) != len(tasks):
        raise BundleError(f"adapters.json has {len(record.folders)} adapters for {len(tasks)} tasks")
    files = {name: path for name in (*COMPANIONS, GENAI_CONFIG) if (path := bundle.file(name)) is not None}
    config = read_json_object(files["config.json"], error=BundleError) if "config.json" in files else {}
    graphs: list[BaseGraph] = []
    updates: list[dict[str, LinearUpdate]] = [{} for _ in tasks]
    components = [manifest.encoder.file] if manifest.encoder is not None else []
    for file in (*components, MODEL_FILE):
        if file not in record.graphs:
            raise BundleError(f"adapters.json says nothing of {file}")
        model, own = _load(bundle, file), record.graphs[file]
        graph = BaseGraph(
            model=_base(bundle, file, own, model),
            model_type=manifest.model_type,
            config=config,
            fingerprint=manifest.fingerprints.get("base", ""),
            prefix=record.prefix,
            places=own.places,
            files=files,
            generation=manifest.generation,
            file=file,
            longest=manifest.max_length,
        )
        if components:
            graph.holds = in_encoder if file in components else lambda module: not in_encoder(module)
        graphs.append(graph)
        _read_tables(own, model, updates)
    adapters = [
        method.task_by_task.restored(task, own, folder.fingerprint, folder.trained_as)
        for task, own, folder in zip(tasks, updates, record.folders, strict=True)
    ]
    return Former(bundle, record, method, method.task_by_task, graphs, adapters)


def _load(bundle: Bundle, file: str) -> ir.Model:
    try:
        return ir.load(bundle.path.absolute() / file)
    except Exception as error:  # protobuf and onnx_ir raise unrelated classes
        raise BundleError(f"{file}: not a valid ONNX model: {one_line(error)}") from None


def _base(bundle: Bundle, file: str, record: GraphRecord, model: ir.Model) -> ir.Model:
    """The base graph of one of the models, with the weights that the model holds."""
    name = base_file(file)
    path = bundle.file(name)
    if path is None:
        raise BundleError(f"{name}: missing; the bundle is incomplete")
    if scan_onnx(path).external:
        raise NotSupportedError(f"{name}: keeps weights inside its control flow; {_AGAIN}")
    base = ir.load(path, format="protobuf")
    missing = fill(base, record.inputs, lambda weight: _weight(model, weight))
    if missing:
        raise NotSupportedError(f"{file} holds no {some(missing)} of its base as it was; {_AGAIN}")
    return base


def _weight(model: ir.Model, name: str) -> ir.TensorProtocol | None:
    """A weight of the base, float32 where it is only stored as float16."""
    own = model.graph.initializers
    if name in own:
        return own[name].const_value
    half = own.get(f"{name}{_HALF}")
    if half is None or half.const_value is None:
        return None
    return ir.Tensor(half.const_value.numpy().astype(np.float32), name=name)


def _read_tables(record: GraphRecord, model: ir.Model, updates: list[dict[str, LinearUpdate]]) -> None:
    """Reads each task's updates from the constants that have an entry for it."""
    parts: list[dict[str, dict[str, np.ndarray]]] = [{} for _ in updates]
    for name, tables in record.tables.items():
        tensor = _weight(model, name)
        if tensor is None:
            raise BundleError(f"adapters.json: the model has no constant {name}")
        array = tensor.numpy()
        for table in tables:
            for task, found in enumerate(parts):
                entry = table.entry(array, task)
                if entry is not None:
                    found.setdefault(table.module, {})[table.part] = entry.T if table.part in ("a", "b") else entry
    for own, found in zip(updates, parts, strict=True):
        own |= {module: LinearUpdate(**fields) for module, fields in found.items()}
