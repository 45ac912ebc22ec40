"""The trained model, asked for what the bundle is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch

from eptx.bundle import Manifest
from eptx.exporter.adapters.route import Route
from eptx.exporter.trained import Output, Trained, load_trained
from eptx.exporter.validation.bundle.decode_loop import spans
from eptx.exporter.validation.inputs.batch import ANSWER_IDS, Batch, task_ids
from eptx.exporter.validation.quantized.weights import Quantized
from eptx.exporter.validation.reference.expected import Expected
from eptx.exporter.validation.reference.files import Truth
from eptx.exporter.validation.reference.rounding import round_as_stored
from eptx.exporter.validation.reference.router_ties import Decider, Decisions
from eptx.exporter.validation.reference.row_groups import columns_of, merged, narrowed, rows_of, shapes_of, widened
from eptx.manifest.names import AUTO_TASK, USED

Routes = Route | list[Route] | None
Inputs = Mapping[str, np.ndarray]
#: What a language model is for; whatever else its class returns, a bundle that generates gives this and a cache.
_ANSWERS = "logits"


class Asked:
    """The trained model for a bundle.

    Rows of one task are run together, apart from the others': what a row gets must not depend on whose neighbour it is.
    Rows of a generator are run without padding, those of one length together. Where a row's result depends on its
    neighbours by design, TuckA's live route for the batch, all rows are run together.

    Args:
        manifest: of the bundle.
        truth: the trained model's files.
        dtype: float64, or float32 for the export's own type.
        quantized: the bundle's quantized weights, in place of the base's; None: it has none.
    """

    def __init__(
        self, manifest: Manifest, truth: Truth, dtype: torch.dtype, quantized: Quantized | None = None
    ) -> None:
        self.manifest, self.truth = manifest, truth
        self.model: Trained = load_trained(truth.base, truth.files, truth.tasks, top_k=truth.top_k, dtype=dtype)
        self.folded = quantized is not None and manifest.mode == "static"
        if quantized is not None:
            fold = self._fold if self.folded else None
            own = self.model.host_of(next(iter(truth.ids.values()))) if self.folded else self.model.hosts[0]
            if dtype == torch.float64:
                quantized.compare(own, fold)
            for host in [own] if self.folded else self.model.hosts:
                quantized.put_in(host, fold)
        if dtype != torch.float64:
            round_as_stored(self.model, manifest)
        self.decider = Decider(self.model)
        places = {**manifest.modules, **(manifest.encoder.modules if manifest.encoder is not None else {})}
        self._biases = {
            name: None if name not in places or places[name].bias else self.model.bias(name)
            for name in self.model.module_names
        }

    def run(self, batch: Batch, *, live: bool = False, off: bool = False) -> Expected:
        """One batch: with the frozen route or the live one, or with the adapter off."""
        groups = self._groups(batch, live)
        parts = [self._run_unpadded(rows_of(batch, rows), live, off) for rows in groups]
        return parts[0] if len(parts) == 1 else merged(batch, groups, parts)

    def _groups(self, batch: Batch, live: bool) -> list[np.ndarray]:
        """The rows that are run together."""
        routed = self._routes_itself(live)
        if routed and (live or self._routing() == "batch"):
            return [np.arange(batch.rows)]
        keys = [(() if routed else (task,)) + shape for task, shape in zip(batch.tasks, shapes_of(batch), strict=True)]
        return [np.flatnonzero([own == key for own in keys]) for key in dict.fromkeys(keys)]

    def _run_unpadded(self, batch: Batch, live: bool, off: bool) -> Expected:
        """Rows of one shape: what stands at padding is nobody's, and some models make it not a number."""
        columns = columns_of(batch)
        if len(columns) == batch.length:
            return self._run(batch, live, off)
        return widened(self._run(narrowed(batch, columns), live, off), batch, columns)

    def _run(self, batch: Batch, live: bool, off: bool) -> Expected:
        ids = task_ids(batch, self.truth.ids)
        if off:
            ids = np.full_like(ids, len(self.truth.tasks))
        elif self._routes_itself(live):
            # the route is of all rows' data, those of `base` too
            ids = np.where(ids == len(self.truth.tasks), 0, ids)
        frozen = None if live else self._frozen().get(batch.tasks[0], self._any_route())
        route: Routes = None
        outputs, decisions = [], []
        cache: Any = None
        for start, stop, part in self._parts(batch):
            if start or stop != batch.length:
                cache = self._new_cache() if start == 0 else cache
            output = self.model.run(part, ids, route=route, routing=self._routing(), cache=cache, frozen=frozen)
            outputs.append(output)
            decisions.append(self.decider.decisions(output, ids))
            ids = output.task  # of a prompt, for all that follows it
            if self.manifest.routing == "prompt" and output.group is not None and output.weights is not None:
                route = [Route(int(g), tuple(map(float, w))) for g, w in zip(output.group, output.weights, strict=True)]
        return self._expected(batch, outputs, decisions)

    def _parts(self, batch: Batch) -> Iterator[tuple[int, int, Inputs]]:
        """The inputs of the model's calls."""
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
        routed = self.model.method.routes_by_data
        if self.model.router in encoder if routed else encoder:
            return [(0, batch.length)]  # the encoder finds it out, once
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

    def _expected(self, batch: Batch, outputs: list[Output], decisions: list[Decisions]) -> Expected:
        first = outputs[0]
        names = [name for name in first.outputs if self.manifest.generation is None or name == _ANSWERS]
        has = {spec.name for spec in self.manifest.outputs if not spec.name.endswith(USED)}
        inner = [name for name in first.inner if name in has]
        return Expected(
            batch,
            {name: _joined([output.outputs[name] for output in outputs]) for name in names},
            {name: _joined([output.inner[name] for output in outputs]) for name in inner},
            {
                name: self._module(name, [output.modules[name] for output in outputs if name in output.modules], batch)
                for name in (first.modules if batch.inside else ())
            },
            np.ones(batch.rows, dtype=bool),
            _groups(outputs, batch),
            first.task,
            decisions,
        )

    def _routes_itself(self, live: bool) -> bool:
        """Whether the model's own router says the route, of the rows' data."""
        return self.model.method.routes_by_data and (live or not self._frozen())

    def _routing(self) -> Literal["batch", "row"]:
        return "batch" if self.manifest.routing in (None, "batch") else "row"

    def _frozen(self) -> dict[str, list[Route | None]]:
        """Task by task the route of each call of the router that the export froze: it was given them, or measured them.

        A call whose route is said to be constant is not frozen here: the trained router says its own.
        """
        route = self.manifest.route or {"tasks": {}, "constant": []}
        constant = {call["call"] for call in route["constant"]}
        return {
            task: _calls([Route(int(r["group"]), tuple(map(float, r["weights"]))) for r in frozen], constant)
            for task, frozen in route["tasks"].items()
        }

    def _any_route(self) -> list[Route | None] | None:
        return next(iter(self._frozen().values()), None)

    def _fold(self, module: str) -> np.ndarray:
        """The weight that a module amounts to in a static bundle, [out, in]."""
        name = self.manifest.tasks[0].name
        route, *_ = self._frozen().get(name, [None])  # several calls' routes are not quantized when they are folded
        return self.model.weight(module, self.truth.ids[name], route)

    def _module(self, name: str, arrays: list[np.ndarray], batch: Batch) -> np.ndarray:
        rows = _joined([array.reshape(batch.rows, -1, array.shape[-1]) for array in map(_per_row(batch.rows), arrays)])
        bias = self._biases[name]
        return rows if bias is None else rows - bias.astype(np.float64)


def _calls(frozen: list[Route], constant: set[int]) -> list[Route | None]:
    """The frozen routes where the router's calls are that they are of, None at the others."""
    calls, given = len(frozen) + len(constant), iter(frozen)
    return [None if call in constant else next(given, None) for call in range(calls)]


def _per_row(rows: int) -> Any:
    """A layer's output that all rows share (relative positions), once for each."""

    def spread(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, (rows, *array.shape[1:])) if len(array) == 1 and rows > 1 else array

    return spread


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    """What several calls gave, float64, side by side along the positions."""
    wide = [np.asarray(array, np.float64) for array in arrays]
    return wide[0] if len(wide) == 1 else np.concatenate(wide, axis=1)


def _groups(outputs: list[Output], batch: Batch) -> list[dict[str, np.ndarray]]:
    """For every call of the bundle the modules' groups; the model may have taken the later calls together."""
    groups = [output.groups for output in outputs]
    return groups + groups[-1:] * (len(spans(batch)) - len(groups))
