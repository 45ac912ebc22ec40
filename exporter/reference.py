"""The reference: the base model in PyTorch with the adapter computed as the released code computes it.

It judges what the exporter makes, so it shares no algebra with it: it takes the adapter's arrays, and nothing of
``fold`` and ``attach``. In float64 it is the truth; in the export's own type, its distance from that is the
noise floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from eptx.errors import RequestError
from eptx.exporter._encode import decoder_call, encode
from eptx.exporter._torch_modules import exactly, torch_names
from eptx.exporter.adapter import Adapter, TaskHeads
from eptx.exporter.base._deberta import allow_positions_per_row
from eptx.exporter.base._model import load_model, read_config
from eptx.exporter.base._quiet import quiet
from eptx.exporter.methods._tuner import INFER, TaskRows
from eptx.exporter.methods.ept.adapter import EptAdapter, EptModule
from eptx.exporter.methods.lora.adapter import LoraAdapter
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.route import Route

__all__ = ["ReferenceModel", "ReferenceOutput", "build_reference"]

_NAME = "default"


@dataclass(frozen=True)
class ReferenceOutput:
    """What one forward of the reference computed.

    Attributes:
        outputs: the model's outputs by transformers' names; with task heads also ``logits`` [batch, most
            labels].
        modules: output of every adapted linear layer, bias included, by the adapter's module names.
        task: task of each row int64 [batch] (for id -1 the one inferred), or None where the adapter has no
            tasks.
        task_margin: EPT with id -1: sum of similarities of the best task less the next one's [batch].
        group: TuckA: chosen group int64 [1 or batch]. weights: [1 or batch, t].
        margin: TuckA: affinity by which the group won [1 or batch].
        affinity: TuckA, the router's own route: what it gives every group's experts [1 or batch, k, t].
    """

    outputs: dict[str, np.ndarray]
    modules: dict[str, np.ndarray]
    task: np.ndarray | None = None
    task_margin: np.ndarray | None = None
    group: np.ndarray | None = None
    weights: np.ndarray | None = None
    margin: np.ndarray | None = None
    affinity: np.ndarray | None = None


@dataclass
class ReferenceModel:
    """The base with the adapter in it; :func:`build_reference` makes it.

    Attributes:
        model: the transformers model with the adapted layers in place.
        adapter: the adapter.
        names: the adapter's module name -> the layer's name in the model.
        dtype: what it computes in.
        state: the adapted layers' shared state.
    """

    model: Any
    adapter: Adapter
    names: dict[str, str]
    dtype: torch.dtype
    state: TaskRows
    tuner: Any = None
    _outputs: dict[str, Tensor] = field(default_factory=dict)

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        task_ids: np.ndarray | Sequence[int] | None = None,
        route: Route | Sequence[Route] | None = None,
        routing: Literal["batch", "row"] = "batch",
        cache: Any = None,
    ) -> ReferenceOutput:
        """One forward.

        Of an encoder-decoder, as a bundle splits it: what reads the text runs first, and what is found out there, the
        task of a row with id -1 or TuckA's route, then holds for the answer.

        Args:
            inputs: the model's inputs by name; float arrays are cast to ``dtype``. Of an encoder-decoder,
                ``decoder_input_ids`` are the answer's tokens, and with a cache that holds the text already,
                ``input_ids`` are left out.
            task_ids: [batch]; ``len(tasks)`` switches the adapter off for the row, -1 infers (EPT). None:
                task 0 where there is one task only.
            route: TuckA: a route for everything, or one per row, instead of the router's.
            routing: TuckA: the router's reach.
            cache: a transformers ``Cache`` of the positions before these, to which these are added; None: there
                are none.

        Raises:
            RequestError: task ids are missing or out of range.
        """
        batch = len(next(iter(inputs.values())))
        ids = self._task_ids(task_ids, batch)
        self._set_route(route, routing)
        tensors = {name: self._tensor(array) for name, array in inputs.items()}
        self._outputs.clear()
        margin: np.ndarray | None = None
        with torch.no_grad():
            if self.model.config.is_encoder_decoder:
                ids, margin, call = self._encode(tensors, ids, cache)
            else:
                call = tensors if cache is None else {**tensors, "past_key_values": cache, "use_cache": True}
            result = self.model(**call)
        outputs = {name: value for name, value in result.items() if isinstance(value, Tensor)}
        used, task_margin = self._used_tasks(ids)
        if self.adapter.heads is not None:
            outputs["logits"] = _head_logits(self.adapter, outputs, tensors.get("attention_mask"), used)
        live = getattr(self.state, "forced", None) or getattr(self.state, "route", None)
        return ReferenceOutput(
            {name: _array(value) for name, value in outputs.items()},
            {module: _array(value) for module, value in self._outputs.items()},
            task=_array(used),
            task_margin=task_margin if margin is None else margin,
            group=_array(live.group) if live is not None else None,
            weights=_array(live.weights) if live is not None else None,
            margin=_array(live.margin) if live is not None else None,
            affinity=_array(live.affinity) if live is not None and live.affinity is not None else None,
        )

    def _encode(self, tensors: dict[str, Tensor], ids: Tensor, cache: Any) -> tuple[Tensor, np.ndarray | None, Any]:
        """Runs what reads the text, unless a cache has it; the rows' tasks, their margin, and the decoder's inputs."""
        margin: np.ndarray | None = None
        if "input_ids" in tensors:
            if self.tuner is not None:
                self.tuner._begin(self.model, (), dict(tensors))
            cache = encode(self.model, tensors, cache)
            ids, margin = self._used_tasks(ids)
            self.state.set(ids, lowest=INFER)
            if getattr(self.state, "fresh", False):
                state: Any = self.state
                state.forced = state.route
        return ids, margin, decoder_call(self.model, tensors, cache)

    def bias(self, module: str) -> np.ndarray | None:
        """The bias [out] of an adapted layer, which its output includes."""
        bias = self.model.get_submodule(self.names[module]).base_layer.bias
        return None if bias is None else _array(bias)

    def weight(self, module: str, task_id: int, route: Route | None = None) -> np.ndarray:
        """The weight [out, in] that an adapted layer amounts to for one task: what it makes of a unit matrix."""
        self._task_ids([task_id], 1)
        self._set_route(route, "batch")
        layer: Any = self.model.get_submodule(self.names[module])
        with torch.no_grad():
            result = layer(torch.eye(layer.base_layer.in_features, dtype=self.dtype)[None])[0]
        bias = layer.base_layer.bias
        return _array(result if bias is None else result - bias).T

    def _task_ids(self, task_ids: np.ndarray | Sequence[int] | None, batch: int) -> Tensor:
        if task_ids is None and len(self.adapter.tasks) > 1:
            raise RequestError("give a task id per row: the adapter has several tasks")
        ids = torch.zeros(batch, dtype=torch.int64) if task_ids is None else torch.tensor(np.asarray(task_ids))
        try:
            self.state.set(ids, lowest=INFER if isinstance(self.adapter, EptAdapter) else 0)
        except ValueError as e:
            raise RequestError(str(e)) from None
        if len(ids) != batch:
            raise RequestError(f"{len(ids)} task ids for {batch} rows")
        return ids.to(torch.int64)

    def _set_route(self, route: Route | Sequence[Route] | None, routing: str) -> None:
        if not isinstance(self.adapter, TuckaAdapter):
            return
        from eptx.exporter.methods.tucka.layer import TuckaRoute

        state: Any = self.state
        state.routing, state.forced = routing, None
        if route is not None:
            routes = [route] if isinstance(route, Route) else list(route)
            weights = torch.tensor([r.weights for r in routes], dtype=self.dtype)
            groups = torch.tensor([r.group for r in routes])
            state.forced = TuckaRoute(groups, weights, torch.full((len(routes),), torch.inf, dtype=self.dtype))

    def _used_tasks(self, ids: Tensor) -> tuple[Tensor, np.ndarray | None]:
        similarity: Tensor | None = getattr(self.state, "similarity", None)
        if similarity is None:
            return ids, None
        best = similarity.topk(min(2, similarity.shape[1]), dim=1).values
        margin = best[:, 0] - best[:, -1] if best.shape[1] > 1 else torch.full_like(best[:, 0], torch.inf)
        return torch.where(ids == INFER, similarity.argmax(1), ids), _array(margin)

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def _watch(self) -> None:
        """Keeps every adapted layer's first output of a forward, DeBERTa-v2's of the text."""
        for module, name in self.names.items():

            def keep(layer: nn.Module, args: Any, output: Tensor, module: str = module) -> None:
                state: Any = self.state
                if not getattr(state, "probing", False):
                    self._outputs.setdefault(module, output)

            self.model.get_submodule(name).register_forward_hook(keep)


def build_reference(
    base_folder: Path, adapter: Adapter, *, headless: bool | None = None, dtype: torch.dtype = torch.float64
) -> ReferenceModel:
    """The reference for an adapter on a transformers folder.

    Args:
        base_folder: the base model.
        adapter: EPT, TuckA or LoRA.
        headless: the bare model; None: where the adapter brings task heads.
        dtype: what weights are held and everything is computed in.

    Raises:
        BaseModelError: the base cannot be loaded, or the adapter does not fit it.
        NotSupportedError: the architecture is not supported.
    """
    with quiet():
        bare = adapter.heads is not None if headless is None else headless
        model = load_model(base_folder, read_config(base_folder), headless=bare)
        names = torch_names(model, base_folder, adapter)
        reference = _inject(model, adapter, names, dtype)
    reference._watch()
    return reference


def _inject(model: Any, adapter: Adapter, names: dict[str, str], dtype: torch.dtype) -> ReferenceModel:
    if isinstance(adapter, EptAdapter):
        return _inject_ept(model, adapter, names, dtype)
    if isinstance(adapter, TuckaAdapter):
        return _inject_tucka(model, adapter, names, dtype)
    assert isinstance(adapter, LoraAdapter)
    return _inject_lora(model, adapter, names, dtype)


def _inject_ept(model: Any, adapter: EptAdapter, names: dict[str, str], dtype: torch.dtype) -> ReferenceModel:
    from eptx.exporter.methods.ept.config import EptConfig
    from eptx.exporter.methods.ept.model import EptModel

    config = EptConfig(
        target_modules=exactly(list(names.values())),
        kernel_pattern={names[m]: list(weights.sizes) for m, weights in adapter.modules.items()},
        rank_pattern={names[m]: weights.rank for m, weights in adapter.modules.items()},
        kernel_sizes=[2] * max(len(weights.sizes) for weights in adapter.modules.values()),
        top_k=adapter.top_k,
        tasks=list(adapter.tasks),
        init_weights=False,
    )
    tuner = EptModel(model, config, _NAME)
    model.to(dtype).eval()
    for module, weights in adapter.modules.items():
        _load_ept(model.get_submodule(names[module]), weights)
    return ReferenceModel(model, adapter, names, dtype, tuner.state, tuner)


def _load_ept(layer: Any, weights: EptModule) -> None:
    gate = layer.lora_gate[_NAME][0]
    pairs = [
        (layer.lora_A[_NAME].weight, weights.a),
        (layer.lora_B[_NAME].weight, weights.b),
        (gate.weight, weights.gate_weight),
        (gate.bias, weights.gate_bias),
        (layer.lora_task_embedding[_NAME].weight, weights.task_embedding),
        *((p, k[None, :, :, None]) for p, k in zip(layer.lora_expert_kernels[_NAME], weights.kernels, strict=True)),
    ]
    for parameter, array in pairs:
        _assign(parameter, array)
    layer.scaling[_NAME] = weights.scale


def _inject_tucka(model: Any, adapter: TuckaAdapter, names: dict[str, str], dtype: torch.dtype) -> ReferenceModel:
    from eptx.exporter.methods.tucka.config import TuckaConfig
    from eptx.exporter.methods.tucka.model import TuckaModel

    router = adapter.modules[adapter.router]
    config = TuckaConfig(
        target_modules=exactly(list(names.values())),
        router_name=names[adapter.router],
        r=router.u.shape[1],
        k=adapter.groups,
        t=adapter.experts,
        p=router.c.shape[1],
        alpha=adapter.alpha,
        tasks=list(adapter.tasks),
        init_weights=False,
        router_initialized=True,
    )
    tuner = TuckaModel(model, config, _NAME)
    model.to(dtype).eval()
    for module, weights in adapter.modules.items():
        layer = model.get_submodule(names[module])
        for parameters, array in (
            (layer.tucka_u, weights.u),
            (layer.tucka_g, weights.g),
            (layer.tucka_c, weights.c),
        ):
            _assign(parameters[_NAME], array)
    _assign(model.get_submodule(names[adapter.router]).tucka_ec[_NAME], adapter.centroids)
    return ReferenceModel(model, adapter, names, dtype, tuner.state, tuner)


def _inject_lora(model: Any, adapter: LoraAdapter, names: dict[str, str], dtype: torch.dtype) -> ReferenceModel:
    from eptx.exporter.methods.lora.layer import LoraRowsLinear

    state = TaskRows(len(adapter.tasks))
    for module, name in names.items():
        of_task = adapter.of_module(module)
        tasks = {i: of_task[task] for i, task in enumerate(adapter.tasks) if task in of_task}
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, LoraRowsLinear(model.get_submodule(name), state, tasks))
    allow_positions_per_row(model, state.share_input)
    model.to(dtype).eval()
    return ReferenceModel(model, adapter, names, dtype, state)


def _assign(parameter: Tensor, array: np.ndarray) -> None:
    with torch.no_grad():
        parameter.copy_(torch.tensor(array).reshape(parameter.shape))


def _head_logits(adapter: Adapter, outputs: Mapping[str, Tensor], mask: Tensor | None, tasks: Tensor) -> Tensor:
    """Each row by its task's head, zero past its labels, for ``base``, and for tasks without a head."""
    heads = adapter.heads
    assert heads is not None
    pooled = _pooled(heads, outputs, mask)
    logits = pooled.new_zeros(len(pooled), max(heads.labels(task) for task in adapter.tasks))
    for row, task_id in enumerate(tasks.tolist()):
        task = adapter.tasks[task_id] if task_id < len(adapter.tasks) else ""
        if heads.labels(task):
            weight, bias = (
                torch.tensor(array, dtype=pooled.dtype) for array in (heads.weights[task], heads.biases[task])
            )
            logits[row, : len(bias)] = nn.functional.linear(pooled[row], weight, bias)
    return logits


def _pooled(heads: TaskHeads, outputs: Mapping[str, Tensor], mask: Tensor | None) -> Tensor:
    if heads.pooling == "pooler":
        return outputs["pooler_output"]
    hidden = outputs["last_hidden_state"]
    if heads.pooling == "first":
        return hidden[:, 0]
    if mask is None:
        return hidden.mean(1)
    kept = mask.to(hidden.dtype)[:, :, None]
    return (hidden * kept).sum(1) / kept.sum(1).clamp_min(1)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().numpy()
    return array
