"""``adapters.json``: what an export knew and its graphs do not say, so that tasks can be added to a bundle and removed.

Beside it lies each base graph without its weights (``model.base``, see `eptx.exporter.bases.outline`). Sessions read
neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import onnx_ir as ir

from eptx.bundle import Bundle, BundleWriter
from eptx.errors import BundleError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.label_names import Names
from eptx.exporter.adapters.trained_as import TrainedAs
from eptx.exporter.adapters.updates import TaskTable
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
    """

    inputs: int
    places: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, tuple[TaskTable, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """The content of the file.

    Attributes:
        precision: that the export was asked for.
        prefix: the base's, see `BaseGraph`.
        named: whether names in the graphs find every module, without the base's weights.
        whole: what else tasks change, of which nothing is noted here.
        folders: of the tasks, by id.
        graphs: the model's file -> what its base graph does not say.
    """

    precision: str
    prefix: str
    named: bool
    whole: tuple[str, ...]
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
        records[edited.graph.file] = GraphRecord(inputs, edited.places, tables)
    if not records:
        return
    folders = tuple(
        Folder(own, said.noted, said.task_type, said.base, tuple(adapter.label_names.get(task, ())))
        for task, own, said in zip(adapter.tasks, adapter.fingerprints, adapter.trained_as, strict=True)
    )
    changed = ["task heads"] if adapter.heads is not None else [t for own in adapter.changes.values() for t in own]
    whole = tuple(dict.fromkeys(changed))
    record = Record(precision, graphs[-1].graph.prefix, named, whole, folders, records)
    writer.write(RECORD, dump_json(asdict(record)))


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
        folders=tuple(each.read(_folder) for each in f.children("folders")),
        graphs={name: each.read(_graph) for name, each in f.child("graphs").items()},
    )


def _folder(f: Fields) -> Folder:
    noted, task_type, base = (f.string(n) if f.present(n) else None for n in ("noted", "task_type", "base"))
    names = f.array("label_names")
    if not all(isinstance(own, list) and all(isinstance(name, str) for name in own) for own in names):
        raise f.bad("label_names must be lists of names")
    return Folder(f.string("fingerprint"), noted, task_type, base, tuple(map(tuple, names)))


def _graph(f: Fields) -> GraphRecord:
    tables = f.child("tables")
    return GraphRecord(
        inputs=f.count("inputs", least=1),
        places=f.child("places").strings(),
        tables={name: tuple(each.read(_table) for each in tables.children(name)) for name in tables.raw()},
    )


def _table(f: Fields) -> TaskTable:
    sizes = f.array("sizes")
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise f.bad("sizes must be a list of counts")
    return TaskTable(f.string("module"), f.string("part"), f.count("axis"), tuple(sizes), f.count("start"))
