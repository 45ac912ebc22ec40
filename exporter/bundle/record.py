"""``adapters.json``: what an export knew and its graphs do not say, so that tasks can be added to a bundle and removed.

Beside it lies each base graph without its weights (``model.base``, see `eptx.exporter.bases.outline`). Sessions read
neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import cast, get_args

import onnx_ir as ir

from eptx.bundle import Bundle, BundleWriter
from eptx.errors import BundleError
from eptx.exporter.adapters.adapter import Adapter, Pooling
from eptx.exporter.adapters.label_names import Names
from eptx.exporter.adapters.trained_as import TrainedAs
from eptx.exporter.adapters.updates import TaskTable, TensorTable
from eptx.exporter.bases.weights.whole import Form
from eptx.exporter.bundle.clean import clean
from eptx.exporter.graph.edited import EditedGraph
from eptx.files.fields import Fields
from eptx.files.strict_json import dump_json, read_json
from eptx.manifest.names import FLOAT_PRECISIONS

RECORD = "adapters.json"
_PRECISIONS = (*FLOAT_PRECISIONS, "int8", "int8-static", "int4", "mixed")


@dataclass(frozen=True)
class Folder:
    """The folder of one task's adapter.

    Attributes:
        fingerprint: ``sha256:<hex>`` over its files.
        noted, task_type, base: what it says of the model that was trained, see `TrainedAs`.
        label_names: what its labels may be called, see `Adapter`.
    """

    fingerprint: str
    noted: str | None
    task_type: str | None
    base: str | None
    label_names: tuple[Names, ...]

    @property
    def trained_as(self) -> TrainedAs:
        """What the folder says of the model that was trained."""
        return TrainedAs(self.noted, self.task_type, base=self.base)


@dataclass(frozen=True)
class GraphRecord:
    """What the base graph of one model does not say.

    Attributes:
        inputs: how many inputs it has; those behind them are its weights.
        places: module -> node or weight and columns, for modules that names in the graph do not find.
        tables: constant of the model -> what it holds of each task.
        tensors: constant of the model -> the tasks' own tensors that it holds.
    """

    inputs: int
    places: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, tuple[TaskTable, ...]] = field(default_factory=dict)
    tensors: Mapping[str, TensorTable] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """The content of the file.

    Attributes:
        precision: that the export was asked for.
        prefix: the base's, see `BaseGraph`.
        named: whether names in the graphs find every module, without the base's weights.
        whole: what else tasks change, of which nothing is noted here.
        form: what the base's class says of its tensors.
        pooling: what task heads read; None without any.
        folders: of the tasks, by id.
        graphs: the model's file -> what its base graph does not say.
    """

    precision: str
    prefix: str
    named: bool
    whole: tuple[str, ...]
    form: Form
    pooling: Pooling | None
    folders: tuple[Folder, ...]
    graphs: Mapping[str, GraphRecord]


def base_file(model: str) -> str:
    """The file of a model's base graph."""
    return f"{model.removesuffix('.onnx')}.base"


def write_record(
    writer: BundleWriter, graphs: Sequence[EditedGraph], adapter: Adapter, precision: str, *, named: bool
) -> None:
    """Writes the file, and the base graphs beside it, where the graphs keep them.

    Args:
        writer: of the bundle.
        graphs: with the adapter in them.
        adapter: the adapter.
        precision: see `Record`.
        named: see `Record`.
    """
    records = {}
    for edited in graphs:
        base = edited.base
        if base is None:
            continue
        clean(base)
        writer.write(base_file(edited.graph.file), ir.to_proto(base).SerializeToString(deterministic=True))
        tables = {name: tuple(own.values()) for name, own in edited.editor.tables.items()}
        inputs = len(base.graph.inputs) - len(edited.weights)
        records[edited.graph.file] = GraphRecord(inputs, edited.places, tables, edited.editor.tensors)
    if not records:
        return
    folders = tuple(
        Folder(own, said.noted, said.task_type, said.base, tuple(adapter.label_names.get(task, ())))
        for task, own, said in zip(adapter.tasks, adapter.fingerprints, adapter.trained_as, strict=True)
    )
    main, pooling = graphs[-1].graph, None if adapter.heads is None else adapter.heads.pooling
    form = main.whole.form
    record = Record(precision, main.prefix, named, unnoted(graphs), form, pooling, folders, records)
    writer.write(RECORD, dump_json(asdict(record)))


def unnoted(graphs: Sequence[EditedGraph]) -> tuple[str, ...]:
    """The tensors of which tasks have their own in a form that nobody takes apart."""
    noted = {table.tensor for edited in graphs for table in edited.editor.tensors.values()}
    whole = graphs[-1].graph.whole
    alike = [tensor for tensor in whole.alike if tensor not in noted or whole.vocabulary is not None]
    return tuple(dict.fromkeys([*(name for edited in graphs for name in edited.unnoted()), *alike]))


def read_record(bundle: Bundle) -> Record | None:
    """The record of a bundle; None where it has none.

    Raises:
        BundleError: the file is not what eptx writes.
    """
    path = bundle.file(RECORD)
    if path is None:
        return None
    f = Fields(read_json(path, error=BundleError), where=RECORD, error=BundleError)
    return f.read(_record)


def _record(f: Fields) -> Record:
    return Record(
        precision=f.choice("precision", _PRECISIONS),
        prefix=f.string("prefix"),
        named=f.boolean("named"),
        whole=f.string_list("whole"),
        form=f.child("form").read(_form),
        pooling=cast(Pooling, f.choice("pooling", get_args(Pooling))) if f.present("pooling") else None,
        folders=tuple(each.read(_folder) for each in f.children("folders")),
        graphs={name: each.read(_graph) for name, each in f.child("graphs").items()},
    )


def _folder(f: Fields) -> Folder:
    noted, task_type, base = (f.string(n) if f.present(n) else None for n in ("noted", "task_type", "base"))
    names = f.array("label_names")
    if not all(isinstance(own, list) and all(isinstance(name, str) for name in own) for own in names):
        raise f.bad("label_names must be lists of names")
    return Folder(f.string("fingerprint"), noted, task_type, base, tuple(map(tuple, names)))


def _form(f: Fields) -> Form:
    tied = f.array("tied")
    if not all(isinstance(own, list) and all(isinstance(name, str) for name in own) for own in tied):
        raise f.bad("tied must be lists of names")
    return Form(f.string_list("by_labels"), tuple(map(tuple, tied)))


def _graph(f: Fields) -> GraphRecord:
    tables = f.child("tables")
    return GraphRecord(
        inputs=f.count("inputs", least=1),
        places=f.child("places").strings(),
        tables={name: tuple(each.read(_table) for each in tables.children(name)) for name in tables.raw()},
        tensors={name: each.read(_tensor) for name, each in f.child("tensors").items()},
    )


def _table(f: Fields) -> TaskTable:
    return TaskTable(f.string("module"), f.string("part"), f.count("axis"), _counts(f, "sizes"), f.count("start"))


def _tensor(f: Fields) -> TensorTable:
    return TensorTable(
        tensor=f.string("tensor"),
        value=f.string("value"),
        turned=f.boolean("turned"),
        swapped=f.boolean("swapped"),
        entries=_counts(f, "entries"),
        sizes=_counts(f, "sizes"),
        base=f.count("base") if f.present("base") else None,
    )


def _counts(f: Fields, key: str) -> tuple[int, ...]:
    found = f.array(key)
    if not all(type(count) is int and count >= 0 for count in found):
        raise f.bad(f"{key} must be a list of counts")
    return tuple(found)
