"""Runs the trained model on the batches of a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch

from eptx.bundle import Manifest
from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.trained import Output, Trained
from eptx.exporter.validation.quantized.weights import QuantizedWeights
from eptx.exporter.validation.reference.files import ReferenceFiles
from eptx.exporter.validation.reference.half import half_arithmetic
from eptx.exporter.validation.reference.rounding import computes_in_half, round_as_stored
from eptx.exporter.validation.reference.router_ties import RouterRecorder
from eptx.exporter.validation.reference.routes import frozen_routes
from eptx.exporter.validation.reference.row_groups import (
    kept_columns,
    merge_results,
    padding_of,
    rows_of,
    scatter_columns,
    select_columns,
)
from eptx.manifest.names import AUTO_TASK, USED
from eptx.runtime.validation.batch import ANSWER_IDS, Batch, spans, task_ids
from eptx.runtime.validation.expected import Whole
from eptx.runtime.validation.routers import Decisions

Routes = Route | list[Route] | None
Inputs = Mapping[str, np.ndarray]
#: A bundle that generates gives this and a cache, whatever else the trained class returns.
_ANSWERS = "logits"


class ReferenceRunner:
    """The trained model, run as the reference for a bundle.

    Rows of one task run together, apart from those of other tasks, since no row's result may depend on another row. A
    generator's rows run without padding, those of one length together. Only TuckA's live route for a batch depends on
    all rows by design; then all rows run together.

    Args:
        manifest: of the bundle.
        reference: the trained model's files.
        dtype: float64, or float32 to round like the export's own type.
        quantized: the bundle's quantized weights, which replace the base's; None if it has none.
    """

    def __init__(
        self,
        manifest: Manifest,
        reference: ReferenceFiles,
        dtype: torch.dtype,
        quantized: QuantizedWeights | None = None,
    ) -> None:
        self.manifest, self.reference, self._frozen = manifest, reference, frozen_routes(manifest)
        self.model: Trained = reference.load(dtype)
        self.folded = quantized is not None and manifest.mode == "static"
        if quantized is not None:
            fold = self._fold if self.folded else None
            own = self.model.host_of(next(iter(reference.ids.values()))) if self.folded else self.model.hosts[0]
            if dtype == torch.float64:
                quantized.compare(own, fold)
            for host in [own] if self.folded else self.model.hosts:
                quantized.put_in(host, fold)
        self._arithmetic: AbstractContextManager[Any] = nullcontext()
        if dtype != torch.float64:
            round_as_stored(self.model, manifest)
            if computes_in_half(self.model, manifest):
                self._arithmetic = half_arithmetic(self.model)
        self.decider = RouterRecorder(self.model)
        self.places = {**manifest.modules, **(manifest.encoder.modules if manifest.encoder is not None else {})}
        self._without_bias = [name for name, place in self.places.items() if not place.bias]

    def run(self, batch: Batch, *, live: bool = False, off: bool = False) -> Whole:
        """Runs one batch: with the frozen route, with the live one, or with the adapter off."""
        groups = self._groups(batch, live)
        parts = [self._run_unpadded(rows_of(batch, rows), live, off) for rows in groups]
        return parts[0] if len(parts) == 1 else merge_results(batch, groups, parts)

    def idle(self, modules: Iterable[str], batch: Batch) -> set[str]:
        """Those of some adapted modules that give what they like: no output of the model changes with it."""
        found = set()
        for module in modules:
            wanted = self.run(batch).outputs
            layers = [host.layer(module) for host in self.model.hosts]
            hooks = [layer.register_forward_hook(lambda _, __, y: y + y.cos()) for layer in layers]
            try:
                disturbed = self.run(batch).outputs
            finally:
                for hook in hooks:
                    hook.remove()
            if all(np.array_equal(wanted[name], disturbed[name]) for name in wanted):
                found.add(module)
        return found

    def _groups(self, batch: Batch, live: bool) -> list[np.ndarray]:
        """The rows that run together."""
        routed = self._routes_itself(live)
        if routed and (live or self._routing() == "batch"):
            return [np.arange(batch.rows)]
        keys = [(() if routed else (task,)) + shape for task, shape in zip(batch.tasks, padding_of(batch), strict=True)]
        return [np.flatnonzero([own == key for own in keys]) for key in dict.fromkeys(keys)]

    def _run_unpadded(self, batch: Batch, live: bool, off: bool) -> Whole:
        """Rows of one padding, run without it: nothing compares what stands at padding, and some models make it NaN."""
        columns = kept_columns(batch)
        if len(columns) == batch.length:
            return self._run(batch, live, off)
        return scatter_columns(self._run(select_columns(batch, columns), live, off), batch, columns)

    def _run(self, batch: Batch, live: bool, off: bool) -> Whole:
        ids = task_ids(batch, self.reference.ids)
        if off:
            ids = np.full_like(ids, len(self.reference.tasks))
        elif self._routes_itself(live):
            # the route depends on the data of all rows, those of `base` too
            ids = np.where(ids == len(self.reference.tasks), 0, ids)
        frozen = None if live else self._frozen.get(batch.tasks[0], next(iter(self._frozen.values()), None))
        route: Routes = None
        outputs, decisions = [], []
        cache: Any = None
        for start, stop, part in self._parts(batch):
            if start or stop != batch.length:
                cache = self._new_cache() if start == 0 else cache
            with self._arithmetic:
                output = self.model.run(part, ids, route=route, routing=self._routing(), cache=cache, frozen=frozen)
            outputs.append(output)
            decisions.append(self.decider.decisions(output, ids))
            ids = output.task  # the prompt's task holds for all that follows
            if self.manifest.routing == "prompt" and output.group is not None and output.weights is not None:
                route = [Route(int(g), tuple(map(float, w))) for g, w in zip(output.group, output.weights, strict=True)]
        return self._expected(batch, outputs, decisions)

    def _parts(self, batch: Batch) -> Iterator[tuple[int, int, Inputs]]:
        """The inputs of the model's calls."""
        if batch.prompt is None:
            yield 0, batch.length, batch.arrays
            return
        if ANSWER_IDS in batch.arrays:
            main = self.model.model.main_input_name
            for start, stop in self._spans(batch):
                part = {**batch.read, ANSWER_IDS: batch.arrays[ANSWER_IDS][:, start:stop]}
                yield start, stop, {name: array for name, array in part.items() if name != main or start == 0}
            return
        mask = batch.arrays["attention_mask"]
        columns = {
            "input_ids": batch.arrays["input_ids"],
            "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0),
        }
        for start, stop in self._spans(batch):
            part = {name: array[:, start:stop] for name, array in columns.items()}
            yield start, stop, {**part, "attention_mask": mask[:, :stop]}

    def _spans(self, batch: Batch) -> list[tuple[int, int]]:
        """The columns of each call: one call for all tokens, unless the model chooses again at each call."""
        assert batch.prompt is not None
        encoder = self.manifest.encoder.modules if self.manifest.encoder is not None else {}
        routed = self.model.method.routes_by_data
        if self.model.router in encoder if routed else encoder:
            return [(0, batch.length)]  # the encoder chooses, once
        if routed and self.manifest.routing in ("batch", "row"):
            return spans(batch)
        if self.manifest.routing == "prompt" or AUTO_TASK in batch.tasks:
            return [(0, batch.prompt), (batch.prompt, batch.length)]
        return [(0, batch.length)]

    def _new_cache(self) -> Any:
        from transformers import DynamicCache, EncoderDecoderCache

        if self.manifest.encoder is None:
            return DynamicCache(config=self.model.model.config)
        return EncoderDecoderCache(DynamicCache(), DynamicCache())

    def _expected(self, batch: Batch, outputs: list[Output], decisions: list[Decisions]) -> Whole:
        first = outputs[0]
        names = [name for name in first.outputs if self.manifest.generation is None or name == _ANSWERS]
        has = {spec.name for spec in self.manifest.outputs if not spec.name.endswith(USED)}
        inner = [name for name in first.inner if name in has]
        return Whole(
            batch,
            {name: _joined([output.outputs[name] for output in outputs]) for name in names},
            {name: _joined([output.inner[name] for output in outputs]) for name in inner},
            {
                name: self._module(name, [o.modules[name] for o in outputs if name in o.modules], batch, first.task)
                for name in (first.modules if batch.inside else ())
            },
            np.ones(batch.rows, dtype=bool),
            _groups(outputs, batch),
            first.task,
            decisions,
        )

    def _routes_itself(self, live: bool) -> bool:
        """Whether the model's own router chooses the route from the rows' data."""
        return self.model.method.routes_by_data and (live or not self._frozen)

    def _routing(self) -> Literal["batch", "row"]:
        return "batch" if self.manifest.routing in (None, "batch") else "row"

    def _fold(self, module: str) -> np.ndarray:
        """A module's weight [out, in] with the static bundle's task folded in."""
        name = self.manifest.tasks[0].name
        return self.model.weight(module, self.reference.ids[name], self._frozen.get(name, ()))

    def _module(self, name: str, arrays: list[np.ndarray], batch: Batch, tasks: np.ndarray) -> np.ndarray:
        slots = self.model.slots(name)
        if slots > 1 and arrays[0].ndim == 3:  # where the adapter is off, all of a token's slots hold the same
            arrays = [np.repeat(array[:, :, None], slots, axis=2) for array in arrays]
        # a layer's output may be one row for all (relative positions)
        rows = [np.broadcast_to(a, (batch.rows, *a.shape[1:])) if len(a) == 1 else a for a in arrays]
        values = _joined([array.reshape(batch.rows, -1, slots * array.shape[-1]) for array in rows])
        if name not in self._without_bias:
            return values
        biases = [self.model.bias(name, task) for task in tasks.tolist()]
        if any(bias is None for bias in biases):
            return values
        return values - np.tile(np.array(biases, dtype=np.float64), slots)[:, None]


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    """The values of several calls, float64, joined along the positions."""
    wide = [np.asarray(array, np.float64) for array in arrays]
    return wide[0] if len(wide) == 1 else np.concatenate(wide, axis=1)


def _groups(outputs: list[Output], batch: Batch) -> list[dict[str, np.ndarray]]:
    """The modules' groups at every call of the bundle; the reference may have made the later calls as one."""
    groups = [output.groups for output in outputs]
    return groups + groups[-1:] * (len(spans(batch)) - len(groups))
