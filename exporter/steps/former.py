"""A bundle taken apart again: the graphs of its base, and the adapter of each task."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from eptx._one_line import one_line, some
from eptx.bundle import Bundle
from eptx.bundle.genai_config import GENAI_CONFIG
from eptx.bundle.onnx_scan import scan_onnx
from eptx.errors import BundleError, NotSupportedError
from eptx.exporter.adapters.adapter import Adapter, TaskHeads
from eptx.exporter.adapters.changes import TensorChange, Whole
from eptx.exporter.adapters.updates import FACTORS, VECTORS, LinearUpdate
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.names import in_encoder
from eptx.exporter.bases.outline import fill
from eptx.exporter.bases.passes.kept import KeptTensor
from eptx.exporter.bundle.record import RECORD, GraphRecord, Record, base_file, read_record
from eptx.exporter.bundle.tokenizer import FILES as TOKENIZER_FILES
from eptx.exporter.bundle.write import COMPANIONS, CONFIG
from eptx.exporter.graph.ends.heads import BIAS, WEIGHT
from eptx.exporter.graph.fp16.store import HALF
from eptx.exporter.methods.method import Method, TaskByTask, methods
from eptx.files.strict_json import read_json_object
from eptx.manifest.names import BASE_TASK, MODEL_FILE

#: What else there is to do.
AGAIN = "export base and adapters again with eptx export"


@dataclass(frozen=True)
class Former:
    """What a conditioned bundle was made of.

    Attributes:
        bundle: the bundle.
        record: what its export noted.
        method: of its adapters.
        tasks_of: what joins its tasks.
        graphs: of the base, without an adapter in them.
        kept: of each graph, what the bundle holds of the tensors that tasks change, by their names in the class.
        adapters: one for each task, by id.
        models: the models themselves, as the graphs are ordered.
        rounded: whether the base's weights are stored in fewer bits than the base has.
        lost: the weights whose numbers the bundle does not hold as such: they are quantized.
    """

    bundle: Bundle
    record: Record
    method: Method
    tasks_of: TaskByTask
    graphs: list[BaseGraph]
    kept: list[dict[str, KeptTensor]]
    adapters: list[Adapter]
    models: list[ir.Model]
    rounded: bool
    lost: frozenset[str]

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks, by id, without the base's."""
        return [task for adapter in self.adapters for task in adapter.tasks]

    @property
    def modules(self) -> set[str]:
        """The modules that its tasks adapt."""
        return {module for adapter in self.adapters for module in adapter.module_names}


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
            f"conditioned {able} bundles only; {AGAIN}"
        )
    if record.whole:
        raise NotSupportedError(
            f"the tasks of {bundle.path.name} change {record.whole[0]} too, each in its own way: {AGAIN}"
        )
    tasks = [task.name for task in manifest.tasks if task.name != BASE_TASK]
    if len(record.folders) != len(tasks):
        raise BundleError(f"{RECORD}: has {len(record.folders)} adapters for {len(tasks)} tasks")
    encoder = [manifest.encoder.file] if manifest.encoder is not None else []
    files = [*encoder, MODEL_FILE]
    if sorted(files) != sorted(record.graphs):
        raise BundleError(f"{RECORD}: is about {some(sorted(record.graphs))}; the models are {some(files)}")
    weights = [_Weights(_load(bundle, file), manifest.quantization is not None) for file in files]
    changes: list[dict[str, TensorChange]] = [{} for _ in tasks]
    for file, own in zip(files, weights, strict=True):
        _read_tensors(record.graphs[file], own, changes)
    graphs = [_graph(bundle, record, file, own) for file, own in zip(files, weights, strict=True)]
    if encoder:
        graphs[0].holds, graphs[1].holds = in_encoder, lambda module: not in_encoder(module)
    updates: list[dict[str, LinearUpdate]] = [{} for _ in tasks]
    for file, own in zip(files, weights, strict=True):
        _read_tables(record.graphs[file], own, updates)
    tasks_of = method.task_by_task
    adapters = [
        replace(
            tasks_of.restored(task, own, folder.fingerprint, folder.trained_as),
            heads=_head(task, tensors, record),
            changes={task: tensors} if tensors else {},
            label_names={task: folder.label_names},
        )
        for task, own, tensors, folder in zip(tasks, updates, changes, record.folders, strict=True)
    ]
    return Former(
        bundle,
        record,
        method,
        tasks_of,
        graphs,
        [own.kept for own in weights],
        adapters,
        [own.model for own in weights],
        any(own.rounded for own in weights),
        frozenset(name for own in weights for name in own.lost),
    )


def _head(task: str, tensors: dict[str, TensorChange], record: Record) -> TaskHeads | None:
    """The head of a task, taken out of its tensors; None where the bundle has no heads."""
    own = [tensors.pop(name, None) for name in (WEIGHT, BIAS)]
    weight, bias = (each.array if isinstance(each, Whole) else None for each in own)
    if record.pooling is None:
        return None
    if weight is None or bias is None:
        raise BundleError(f"{RECORD}: has no head of task {task!r}")
    return TaskHeads({task: weight}, {task: bias}, record.pooling)


def _load(bundle: Bundle, file: str) -> ir.Model:
    """One of the bundle's files in ONNX's format. What is large stays on the disk until it is read."""
    path = bundle.file(file)
    if path is None:
        raise BundleError(f"{file}: missing; the bundle is incomplete")
    try:
        return ir.load(path, format="protobuf")
    except Exception as error:  # protobuf and onnx_ir raise unrelated classes
        raise BundleError(f"{file}: not a valid ONNX model: {one_line(error)}") from None


class _Weights:
    """The constants of a model.

    Attributes:
        model: the model.
        kept: of the tensors that tasks change, what it holds of the base's.
        rounded: whether one that was asked for is stored in fewer bits than it has.
        lost: those of them that are quantized.
    """

    def __init__(self, model: ir.Model, quantized: bool) -> None:
        self.model = model
        self.kept: dict[str, KeptTensor] = {}
        self.rounded = False
        self.lost: set[str] = set()
        self._quantized = quantized

    def quantizes(self, name: str) -> bool:
        """Whether the model has no such constant, and may have it in fewer bits."""
        own = self.model.graph.initializers
        return self._quantized and name not in own and f"{name}{HALF}" not in own

    def __call__(self, value: ir.Value) -> ir.TensorProtocol | None:
        """The constant of that name: float32 where it is stored as float16, zeros where it is quantized."""
        own = self.model.graph.initializers
        name = str(value.name)
        if name in own:
            return own[name].const_value
        if any(tensor.value == name for tensor in self.kept.values()) and value.shape is not None:
            return ir.Tensor(np.zeros(value.shape.numpy(), np.float32), name=name)  # `with_kept` puts it in
        self.rounded = True
        half = own.get(f"{name}{HALF}")
        if half is not None and half.const_value is not None:
            return ir.Tensor(half.const_value.numpy().astype(np.float32), name=name)
        if not self._quantized or value.dtype != ir.DataType.FLOAT or value.shape is None:
            return None
        self.lost.add(name)
        shape = value.shape.numpy()
        return ir.Tensor(np.zeros(shape, np.float32), name=name) if len(shape) == 2 else None


def _graph(bundle: Bundle, record: Record, file: str, weights: _Weights) -> BaseGraph:
    """The base graph of one of the models, with the weights that the model holds."""
    manifest, name = bundle.manifest, base_file(file)
    model = _load(bundle, name)
    if scan_onnx(bundle.path / name).external:
        raise NotSupportedError(f"{name}: keeps weights inside its control flow: {AGAIN}")
    missing = fill(model, record.graphs[file].inputs, weights)
    unknown = sorted({tensor.value for tensor in weights.kept.values()} - {*model.graph.initializers})
    if unknown:
        raise BundleError(f"{RECORD}: the base graph of {file} has no {some(unknown)}")
    if missing:
        raise NotSupportedError(f"{file} does not hold {some(missing)} of its base as it was: {AGAIN}")
    files = {
        name: path for name in (*COMPANIONS, *TOKENIZER_FILES, GENAI_CONFIG) if (path := bundle.file(name)) is not None
    }
    return BaseGraph(
        model=model,
        model_type=manifest.model_type,
        config=read_json_object(files[CONFIG], error=BundleError) if CONFIG in files else {},
        fingerprint=manifest.fingerprints.get("base", ""),
        prefix=record.prefix,
        places=record.graphs[file].places,
        files=files,
        generation=manifest.generation,
        embedding=manifest.embedding,
        file=file,
        longest=manifest.max_length,
    )


def _read_tensors(record: GraphRecord, weights: _Weights, changes: list[dict[str, TensorChange]]) -> None:
    """Reads each task's own tensors, and the base's of the same, from the constants that hold them."""
    for name, table in record.tensors.items():
        if not table.entries and weights.quantizes(name):
            raise NotSupportedError(f"every task brings {table.tensor}, and {name} is quantized in the bundle: {AGAIN}")
        array = _constant(name, weights)
        if not table.fits(array, len(changes)):
            raise BundleError(f"{RECORD}: {name} is {list(array.shape)}, and not as it says of {table.tensor}")
        base = None if table.base is None else table.entry(array, table.base)
        weights.kept[table.tensor] = KeptTensor(table.value, table.turned, base)
        for task, found in enumerate(changes):
            own = table.of_task(array, task)
            if own is not None:
                found[table.tensor] = Whole(own)
    for head in (WEIGHT, BIAS):
        weights.kept.pop(head, None)  # the base's graph has none


def _constant(name: str, weights: _Weights) -> np.ndarray:
    tensor = weights(ir.Value(name=name))
    if tensor is None:
        raise BundleError(f"{RECORD}: the model has no constant {name}")
    array: np.ndarray = tensor.numpy()
    return array


def _read_tables(record: GraphRecord, weights: _Weights, updates: list[dict[str, LinearUpdate]]) -> None:
    """Reads each task's updates from the constants that have an entry for it."""
    parts: list[dict[str, dict[str, np.ndarray]]] = [{} for _ in updates]
    for name, tables in record.tables.items():
        array = _constant(name, weights)
        for table in tables:
            if not table.fits(array, len(updates)):
                raise BundleError(f"{RECORD}: {name} is {list(array.shape)}, and not as it says of {table.module}")
            for task, found in enumerate(parts):
                entry = table.entry(array, task)
                if entry is not None:
                    found.setdefault(table.module, {})[table.part] = entry.T if table.part in FACTORS else entry
    for own, found in zip(updates, parts, strict=True):
        for module, fields in found.items():
            if not {*FACTORS} <= {*fields} <= {*FACTORS, *VECTORS}:
                raise BundleError(f"{RECORD}: what a task has of {module} is no update: {some(sorted(fields))}")
            own[module] = LinearUpdate(**fields)
