"""A proof, as the file holds it and in memory.

docs/proof.md has the format: other programs read it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from eptx.errors import DataError
from eptx.runtime.measure import Drop
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.check import Check
from eptx.runtime.validation.distance import Spread, Spreads, Subject
from eptx.runtime.validation.expectation import Expectation, Floors
from eptx.runtime.validation.expected import Proved
from eptx.runtime.validation.proof.tensors import read_tensors, write_tensors
from eptx.runtime.validation.quantizing import BudgetedDrop, Divergence
from eptx.runtime.validation.routers import ExpertTable
from eptx.runtime.validation.running.instrumented import InstrumentedModel
from eptx.runtime.validation.values import Sampled, fits

VERSION = 1
_KINDS = ("outputs", "inner", "modules")
_OF_ROWS = ("compared", "task")


@dataclass(frozen=True)
class Proof:
    """What was proved of a bundle.

    Attributes:
        bundle: ``eptx.json`` without what no validation reads.
        expectation: what the reference gave, sampled.
        instrumented: what makes the inside of the bundle's models visible.
        checks: what was compared where the proof was recorded. drops, divergences: what was measured there.
        generator: the eptx that recorded it.
    """

    bundle: Mapping[str, Any]
    expectation: Expectation[Sampled]
    instrumented: InstrumentedModel
    checks: Sequence[Check]
    drops: Sequence[BudgetedDrop]
    divergences: Sequence[Divergence]
    generator: str


def write_proof(path: Path, proof: Proof) -> int:
    """Writes a proof, and returns how many bytes it has.

    Raises:
        UsageError: the file cannot be written.
        LimitError: the disk is full.
    """
    arrays: dict[str, np.ndarray] = {}
    expectation = proof.expectation
    floors = expectation.floors
    content = {
        "version": VERSION,
        "generator": proof.generator,
        "bundle": proof.bundle,
        "columns": floors.columns,
        "class_name": expectation.class_name,
        "modules": list(expectation.modules),
        "redrawn": expectation.redrawn,
        "unclear": expectation.unclear,
        "folded": expectation.folded,
        "batches": [_put_batch(index, batch, arrays) for index, batch in enumerate(expectation.batches)],
        "experts": [_put_table(module, table, arrays) for module, table in expectation.experts.items()],
        "models": _put_models(proof.instrumented, arrays),
        "checks": [asdict(check) for check in proof.checks],
        "drops": [{"drop": one.drop.to_json(), "budget": one.budget} for one in proof.drops],
        "divergences": [asdict(one) for one in proof.divergences],
        "noise": _put_spreads(floors.noise),
        "scale": _put_spreads(floors.scale),
        "effect": _put_spreads(floors.effect),
    }
    return write_tensors(path, content, arrays)


def read_proof(path: Path) -> Proof:
    """Reads a proof.

    Raises:
        DataError: it is none, damaged, or of a version that this eptx does not read.
    """
    content, arrays = read_tensors(path)
    if content.get("version") != VERSION:
        raise DataError(
            f"{path.name}: is of version {content.get('version')!r}; this eptx reads version {VERSION}: record it anew"
        )
    try:
        return _proof(content, arrays)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__} {error}".strip()
        raise DataError(f"{path.name}: damaged: it does not hold what a proof holds ({what[:80]})") from None


def _proof(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Proof:
    spreads = {name: _spreads(content[name]) for name in ("noise", "scale", "effect")}
    expectation: Expectation[Sampled] = Expectation(
        floors=Floors(int(content["columns"]), **spreads),
        batches=[_batch(index, facts, arrays) for index, facts in enumerate(content["batches"])],
        experts={facts["module"]: _table(facts["module"], arrays) for facts in content["experts"]},
        unclear=dict(content["unclear"]),
        redrawn=int(content["redrawn"]),
        folded=dict(content["folded"]),
        modules=tuple(content["modules"]),
        class_name=str(content["class_name"]),
    )
    return Proof(
        bundle=dict(content["bundle"]),
        expectation=expectation,
        instrumented=_models(content["models"], arrays),
        checks=[Check(**check) for check in content["checks"]],
        drops=[BudgetedDrop(Drop(**one["drop"]), one["budget"]) for one in content["drops"]],
        divergences=[Divergence(**one) for one in content["divergences"]],
        generator=str(content["generator"]),
    )


def _put_batch(index: int, proved: Proved, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    batch, own = proved.batch, f"batches.{index}"
    for name, array in batch.arrays.items():
        arrays[f"{own}.inputs.{name}"] = array
    arrays[f"{own}.compared"], arrays[f"{own}.task"] = proved.compared, proved.task.astype(np.int64)
    values = {}
    for kind in _KINDS:
        values[kind] = {name: list(value.shape) for name, value in getattr(proved, kind).items()}
        for name, value in getattr(proved, kind).items():
            arrays[f"{own}.{kind}.{name}"] = value.values
            if value.largest is not None:
                arrays[f"{own}.{kind}.{name}.largest"] = value.largest[0].astype(np.int64)
                arrays[f"{own}.{kind}.{name}.largest_values"] = value.largest[1]
    groups = [{name: np.asarray(group).tolist() for name, group in call.items()} for call in proved.groups]
    facts = {f.name: getattr(batch, f.name) for f in fields(Batch) if f.name not in ("arrays", "labels")}
    return {**facts, "inputs": list(batch.arrays), "tasks": list(batch.tasks), "groups": groups, **values}


def _batch(index: int, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Proved:
    own = f"batches.{index}"
    given = {f.name: facts[f.name] for f in fields(Batch) if f.name not in ("arrays", "labels", "tasks")}
    inputs = {name: arrays[f"{own}.inputs.{name}"] for name in facts["inputs"]}
    batch = Batch(arrays=inputs, tasks=tuple(facts["tasks"]), **given)
    outputs, inner, modules = (_values(f"{own}.{kind}", facts[kind], arrays, batch) for kind in _KINDS)
    if any(len(array) != batch.rows for array in (*inputs.values(), *(arrays[f"{own}.{n}"] for n in _OF_ROWS))):
        raise ValueError(f"{own} has another number of rows")
    groups = [{name: np.array(group) for name, group in call.items()} for call in facts["groups"]]
    return Proved(batch, outputs, inner, modules, arrays[f"{own}.compared"], groups, arrays[f"{own}.task"])


def _values(
    own: str, shapes: Mapping[str, Sequence[int]], arrays: Mapping[str, np.ndarray], batch: Batch
) -> dict[str, Sampled]:
    found = {}
    for name, shape in shapes.items():
        key = f"{own}.{name}"
        indices = arrays.get(f"{key}.largest")
        largest = None if indices is None else (indices, arrays[f"{key}.largest_values"])
        found[name] = Sampled(tuple(map(int, shape)), arrays[key], largest)
        if shape[0] != batch.rows or not fits(found[name], batch):
            raise ValueError(f"{key} is no sample of its shape")
    return found


def _put_table(module: str, table: ExpertTable, arrays: dict[str, np.ndarray]) -> dict[str, str]:
    for f in fields(ExpertTable):
        arrays[f"experts.{module}.{f.name}"] = getattr(table, f.name)
    return {"module": module}


def _table(module: str, arrays: Mapping[str, np.ndarray]) -> ExpertTable:
    return ExpertTable(**{f.name: arrays[f"experts.{module}.{f.name}"] for f in fields(ExpertTable)})


def _put_models(model: InstrumentedModel, arrays: dict[str, np.ndarray], own: str = "model") -> dict[str, Any]:
    arrays[f"{own}.added"] = np.frombuffer(model.added, np.uint8)
    if model.float_activations is not None:
        arrays[f"{own}.float_activations"] = np.frombuffer(model.float_activations, np.uint8)
    encoder = None if model.encoder is None else _put_models(model.encoder, arrays, "encoder")
    return {
        "order": list(model.order),
        "routes": {m: list(pair) for m, pair in model.routes.items()},
        "encoder": encoder,
    }


def _models(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], own: str = "model") -> InstrumentedModel:
    copy = arrays.get(f"{own}.float_activations")
    return InstrumentedModel(
        added=arrays[f"{own}.added"].tobytes(),
        order=tuple(facts["order"]),
        routes={module: (str(choice), str(weights)) for module, (choice, weights) in facts["routes"].items()},
        float_activations=None if copy is None else copy.tobytes(),
        encoder=None if facts["encoder"] is None else _models(facts["encoder"], arrays, "encoder"),
    )


def _put_spreads(spreads: Spreads) -> list[list[Any]]:
    return [[*subject, spread.count, spread.squares, spread.largest] for subject, spread in spreads.items()]


def _spreads(rows: Sequence[Sequence[Any]]) -> Spreads:
    found = Spreads()
    for task, kind, name, count, squares, largest in rows:
        found[Subject(task, kind, name)] = Spread(int(count), float(squares), float(largest))
    return found
