"""The reference, asked for what the bundle is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from eptx._manifest import PRESENT, USED
from eptx.bundle import Manifest
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.reference import ReferenceModel, ReferenceOutput, build_reference
from eptx.exporter.route import Route
from eptx.exporter.validation.batches import ANSWER_IDS, AUTO, Batch, task_ids
from eptx.exporter.validation.calls import spans
from eptx.exporter.validation.choices import Decider, Decisions
from eptx.exporter.validation.quantised import Quantised
from eptx.exporter.validation.rounding import round_as_stored
from eptx.exporter.validation.sources import Truth

Routes = Route | list[Route] | None
Inputs = Mapping[str, np.ndarray]


@dataclass
class Expected:
    """What one batch should give.

    Attributes:
        batch: its inputs.
        outputs: output -> float64 array [rows, ..].
        modules: module -> float64 array [rows, positions, out], without the bias where the graph's value lacks it.
        judged: bool [rows]; False behind a near tie.
        groups: TuckA: for every call the group [1 or rows], else None.
        task: each row's task id, inferred where it was to be.
        decisions: for every call, what was decided in it.
    """

    batch: Batch
    outputs: dict[str, np.ndarray]
    modules: dict[str, np.ndarray]
    judged: np.ndarray
    groups: list[np.ndarray | None]
    task: np.ndarray
    decisions: list[Decisions] = field(default_factory=list, repr=False)

    def rows_of(self, task: str) -> np.ndarray:
        """bool [rows]: the judged rows of a task (``auto``: those to infer)."""
        return np.asarray(np.array([name == task for name in self.batch.tasks]) & self.judged)

    def less(self, other: Expected) -> Expected:
        """The difference of two results of one batch."""
        return replace(
            self,
            outputs={name: self.outputs[name] - array for name, array in other.outputs.items()},
            modules={name: self.modules[name] - array for name, array in other.modules.items()},
        )


class Asked:
    """The reference for a bundle.

    Args:
        manifest: of the bundle.
        truth: the trained model.
        dtype: float64, or float32 for the export's own type.
        quantised: the bundle's quantised weights, in place of the base's; None: it has none.
    """

    def __init__(
        self, manifest: Manifest, truth: Truth, dtype: torch.dtype, quantised: Quantised | None = None
    ) -> None:
        self.manifest, self.truth = manifest, truth
        self.model: ReferenceModel = build_reference(
            truth.base, truth.adapter, headless=_headless(manifest, truth), dtype=dtype
        )
        self.folded = quantised is not None and manifest.mode == "static"
        if quantised is not None:
            fold = self._fold if self.folded else None
            if dtype == torch.float64:
                quantised.compare(self.model, fold)
            quantised.put_in(self.model, fold)
        if dtype != torch.float64:
            round_as_stored(self.model, manifest, quantised.in_blocks if quantised is not None else ())
        self.decider = Decider(self.model)
        self._past: Any = None
        places = {**manifest.modules, **(manifest.encoder.modules if manifest.encoder is not None else {})}
        self._biases = {name: None if place.bias else self.model.bias(name) for name, place in places.items()}

    def run(self, batch: Batch, *, live: bool = False, off: bool = False) -> Expected:
        """One batch: with the frozen route or the live one, or with the adapter off."""
        ids = task_ids(batch, self.truth.ids)
        if off:
            ids = np.full_like(ids, len(self.truth.adapter.tasks))
        route: Routes = None if live else self._routes(batch)
        outputs, decisions = [], []
        for start, stop, part in self._parts(batch):
            cache = None if start == 0 and stop == batch.length else self._cache(start)
            output = self.model.run(part, ids, route=route, routing=self._routing(), cache=cache)
            outputs.append(output)
            decisions.append(self.decider.decisions(output, ids))
            assert output.task is not None
            ids = output.task  # of a prompt, for all that follows it
            if self.manifest.routing == "prompt" and output.group is not None and output.weights is not None:
                route = [Route(int(g), tuple(map(float, w))) for g, w in zip(output.group, output.weights, strict=True)]
        return self._expected(batch, outputs, decisions)

    def _parts(self, batch: Batch) -> Iterator[tuple[int, int, Inputs]]:
        """The inputs of the reference's calls."""
        if batch.prompt is None:
            yield 0, batch.length, batch.arrays
            return
        mask = batch.arrays["attention_mask"]
        if ANSWER_IDS in batch.arrays:
            for start, stop in self._spans(batch):
                answer = {"attention_mask": mask, ANSWER_IDS: batch.arrays[ANSWER_IDS][:, start:stop]}
                yield start, stop, answer if start else {**answer, "input_ids": batch.arrays["input_ids"]}
            return
        columns = {
            "input_ids": batch.arrays["input_ids"],
            "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0),
        }
        for start, stop in self._spans(batch):
            part = {name: array[:, start:stop] for name, array in columns.items()}
            yield start, stop, {**part, "attention_mask": mask[:, :stop]}

    def _spans(self, batch: Batch) -> list[tuple[int, int]]:
        """The columns of the calls: one does for all tokens, unless what is chosen differs from call to call."""
        assert batch.prompt is not None
        encoder = self.manifest.encoder.modules if self.manifest.encoder is not None else {}
        adapter = self.truth.adapter
        if adapter.router in encoder if isinstance(adapter, TuckaAdapter) else encoder:
            return [(0, batch.length)]  # the encoder finds it out, once
        if isinstance(adapter, TuckaAdapter) and self.manifest.routing in ("batch", "row"):
            return spans(batch)
        if self.manifest.routing == "prompt" or AUTO in batch.tasks:
            return [(0, batch.prompt), (batch.prompt, batch.length)]
        return [(0, batch.length)]

    def _cache(self, start: int) -> Any:
        """What is known of the positions before `start`."""
        from transformers import DynamicCache, EncoderDecoderCache

        if start == 0:
            generates_alone = self.manifest.encoder is None
            own = DynamicCache(config=self.model.model.config) if generates_alone else DynamicCache()
            self._past = own if generates_alone else EncoderDecoderCache(own, DynamicCache())
        return self._past

    def _expected(self, batch: Batch, outputs: list[ReferenceOutput], decisions: list[Decisions]) -> Expected:
        first = outputs[0]
        assert first.task is not None
        wanted = [o.name for o in self.manifest.outputs if not o.name.startswith(PRESENT) and not o.name.endswith(USED)]
        names = [name for name in wanted if name in first.outputs]
        return Expected(
            batch,
            {name: _joined([output.outputs[name] for output in outputs]) for name in names},
            {
                name: self._module(name, [output.modules[name] for output in outputs if name in output.modules], batch)
                for name in (first.modules if batch.inside else ())
            },
            np.ones(batch.rows, dtype=bool),
            _groups(outputs, batch),
            first.task,
            decisions,
        )

    def _routing(self) -> Literal["batch", "row"]:
        return "batch" if self.manifest.routing in (None, "batch") else "row"

    def _frozen(self) -> dict[str, Route]:
        frozen = (self.manifest.route or {}).get("tasks") or {}
        return {task: Route(int(r["group"]), tuple(map(float, r["weights"]))) for task, r in frozen.items()}

    def _routes(self, batch: Batch) -> Routes:
        """The frozen route of each row."""
        routes = self._frozen()
        if not routes or not isinstance(self.truth.adapter, TuckaAdapter):
            return None
        any_route = next(iter(routes.values()))
        return [routes.get(task, any_route) for task in batch.tasks]

    def _fold(self, module: str) -> np.ndarray:
        """The weight that a module amounts to in a static bundle, [out, in]."""
        name = self.manifest.tasks[0].name
        return self.model.weight(module, self.truth.ids[name], self._frozen().get(name))

    def _module(self, name: str, arrays: list[np.ndarray], batch: Batch) -> np.ndarray:
        rows = _joined([array.reshape(batch.rows, -1, array.shape[-1]) for array in arrays])
        bias = self._biases[name]
        return rows if bias is None else rows - bias.astype(np.float64)


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    """What several calls gave, float64, side by side along the positions."""
    wide = [np.asarray(array, np.float64) for array in arrays]
    return wide[0] if len(wide) == 1 else np.concatenate(wide, axis=1)


def _groups(outputs: list[ReferenceOutput], batch: Batch) -> list[np.ndarray | None]:
    """For every call of the bundle the group; the reference may have taken the later ones together."""
    groups = [output.group for output in outputs]
    return groups + groups[-1:] * (len(spans(batch)) - len(groups))


def _headless(manifest: Manifest, truth: Truth) -> bool:
    """Whether the graph ends before the model's own head; logits may also be those of task heads."""
    return truth.adapter.heads is not None or all(spec.name != "logits" for spec in manifest.outputs)


def arrays_of(values: Expected) -> Iterator[tuple[Literal["module", "output"], str, np.ndarray]]:
    """Every module's and output's array."""
    for name, array in values.modules.items():
        yield "module", name, array
    for name, array in values.outputs.items():
        yield "output", name, array


def kept_values(array: np.ndarray, rows: np.ndarray, batch: Batch) -> np.ndarray:
    """The numbers [.., ] of some rows, without what stands at padding."""
    kept = batch.kept
    if kept is not None and array.ndim > 2 and array.shape[1] == kept.shape[1]:
        selected: np.ndarray = array[kept & rows[:, None]]
        return selected
    return np.asarray(array[rows])
