"""The trained model in PyTorch: it runs, and gives the outputs of its class and of every adapted layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from eptx.errors import RequestError
from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.methods.tuner import INFER, EptxTuner
from eptx.exporter.trained.encode import decoder_call, encode
from eptx.exporter.trained.host import Host, tensors_of
from eptx.exporter.trained.output import LACKING, Heads, Output
from eptx.exporter.trained.reference import CallRoutes, GivenRoutes, Reference
from eptx.exporter.trained.sentence import SentenceHead
from eptx.exporter.trained.tables import adapted_stacks, changed_tables, changed_tensors, table_of, tokens_of, words_of


@dataclass
class Trained:
    """The trained model; `load_trained` makes it.

    Attributes:
        hosts: the models. Adapters with heads of other shapes have a model of their own, and so has the base without
            an adapter, if its labels are others than theirs.
        tasks: the tasks by id.
        heads: what eptx's training saved beside the adapter, None where the class has its own head.
        dtype: what it computes in.
        sentence: what makes an embedding of a row, where the base's folder says it and the class gives its states.
    """

    hosts: list[Host]
    tasks: tuple[str, ...]
    heads: Heads | None
    dtype: torch.dtype
    sentence: SentenceHead | None = None

    @property
    def method(self) -> Reference:
        """The adapter's method."""
        return self.hosts[0].method

    @property
    def model(self) -> Any:
        """The transformers model; of several, the first task's."""
        return self.hosts[0].model

    @property
    def module_names(self) -> list[str]:
        """The adapted modules, as the adapter's files call them."""
        return list(dict.fromkeys(name for host in self.hosts for name in host.names))

    @property
    def brings_heads(self) -> bool:
        """Whether the last layer is the adapter's own; then it means nothing without a task."""
        return self.heads is not None or any(host.saved for host in self.hosts)

    @property
    def router(self) -> str | None:
        """The module whose input decides the route of all modules; None without one."""
        host = self.hosts[0]
        return next((module for module in host.names if self.method.is_router(host.layer(module))), None)

    def host_of(self, task: int) -> Host:
        """The model that serves a task; of no task, one with the base's own labels."""
        own = (host for host in self.hosts if task in host.adapters)
        return next(own, next((host for host in self.hosts if not (host.base.resized or host.changed)), self.hosts[0]))

    def tables(self, task: int) -> dict[str, np.ndarray]:
        """The embeddings that some task changes, with one task in them: name in the model -> float32 [rows, width]."""
        host = self.host_of(task)
        names = dict.fromkeys(name for each in self.hosts for name in changed_tables(each))
        return {name: table_of(host, name, task if task < len(self.tasks) else None) for name in names}

    def words(self, tasks: Mapping[str, int]) -> dict[str, int]:
        """How many tokens some tasks, by their ids, read: task -> that, where the model reads tokens."""
        counts = {name: words_of(self.host_of(task)) for name, task in tasks.items()}
        return {name: count for name, count in counts.items() if count is not None}

    def stacks(self, task: int) -> dict[str, np.ndarray]:
        """The experts' weights that a task changes, with it in them: name in the model -> float32 [experts, ...]."""
        host = self.host_of(task)
        with host.on(task):
            return adapted_stacks(host)

    @property
    def changed_tensors(self) -> set[str]:
        """The names of the tensors that adapters' factors are added to."""
        return {name for host in self.hosts for name in changed_tensors(host)}

    @contextmanager
    def as_task(self, task: int) -> Iterator[Any]:
        """The transformers model of a task, ready to be called."""
        host = self.host_of(task)
        with host.on(task if task < len(self.tasks) else None):
            # one task for all rows, whatever their number
            self._set(host, torch.tensor([task]), GivenRoutes(self.dtype))
            yield host.model

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        task_ids: np.ndarray | Sequence[int],
        route: Route | Sequence[Route] | None = None,
        routing: Literal["batch", "row"] = "batch",
        cache: Any = None,
        frozen: CallRoutes | None = None,
    ) -> Output:
        """One forward.

        An encoder-decoder runs as a bundle splits it: the encoder comes first, and what is decided there, the task of
        a row with id -1 or the route, holds for the answer.

        Args:
            inputs: the model's inputs by name; float arrays are cast to ``dtype``. Of an encoder-decoder,
                ``decoder_input_ids`` are the answer's tokens, and with a cache that holds the text already, what the
                encoder reads (``input_ids``, ``input_features``) is left out.
            task_ids: [batch]; ``len(tasks)`` switches the adapter off, -1 infers. Which may differ is up to the
                method; see `Reference.together`.
            route: a route for everything, or one per row, instead of the router's.
            routing: the router's reach.
            frozen: the route of each call of the router in turn, or None where it keeps its own.
            cache: a transformers ``Cache`` of the positions before these, to which these are added; None: there
                are none.

        Raises:
            RequestError: task ids are no whole numbers, are out of range, or differ where they must not.
        """
        ids = self._ids(task_ids)
        first = int(ids[0])
        host = self.host_of(first)
        off = bool((ids == len(self.tasks)).all())
        host.forget()
        tensors = {name: self._tensor(array) for name, array in inputs.items()}
        with torch.no_grad(), host.on(None if off else first):
            self._set(host, ids, GivenRoutes(self.dtype, route, routing, frozen or ()))
            ids, margin, call = self._call(host, tensors, ids, cache)
            result = host.model(**call)
            outputs = tensors_of(result)
            if "logits" in outputs:
                outputs["logits"] = self._of_all_tokens(host, outputs["logits"])
            used, task_margin = _used_tasks(host, ids)
            if self.heads is not None:
                names = [(*self.tasks, "")[task] for task in used.tolist()]
                outputs["logits"] = self.heads(result, tensors.get("attention_mask"), names)
            if self.sentence is not None and "last_hidden_state" in outputs:
                outputs["embedding"] = self.sentence(outputs["last_hidden_state"], tensors.get("attention_mask"))
        taken = list(getattr(host.state, "taken", [])) if not off else []
        live = None if off else getattr(host.state, "forced", None) or (taken[0] if taken else None)
        return Output(
            outputs=_arrays(outputs),
            inner=_arrays({name: value for name, value in host._inner.items() if name not in outputs}),
            modules=_arrays(host._modules),
            task=_array(used),
            task_margin=task_margin if margin is None else margin,
            group=_array(live.group) if live is not None else None,
            weights=_array(live.weights) if live is not None else None,
            calls=[
                None if call.affinity is None else _array(call.affinity)
                for call in taken or ([] if live is None else [live])
            ],
            groups=_arrays(host._groups) if not off else {},
            margins=[_array(each.margin) for each in taken],
        )

    def slots(self, module: str) -> int:
        """How many outputs an adapted layer gives for every token, as an axis before the features."""
        return self.method.slots(self.hosts[0].layer(module))

    def bias(self, module: str, task: int) -> np.ndarray | None:
        """The bias [out] of an adapted layer for a task, which its output includes."""
        bias = self._linear(module, task).bias
        return None if bias is None else _array(bias)

    def weight(self, module: str, task: int, frozen: CallRoutes = ()) -> np.ndarray:
        """The weight [out, in] of an adapted layer with one task folded in: its output for a unit matrix."""
        host = self.host_of(task)
        layer, base = host.layer(module), self._linear(module, task)
        with torch.no_grad(), host.on(task):
            route = frozen[0] if len(frozen) == 1 else None  # the layer alone calls no router
            self._set(host, torch.tensor([task]), GivenRoutes(self.dtype, route, calls=frozen))
            width = base.weight.shape[int(isinstance(base, nn.Linear))]  # a Conv1D stores [in, out]
            result = layer(torch.eye(width, dtype=self.dtype)[None])[0]
            if self.method.one_task_each:  # no router reads these zeros, and the adapter may have a bias of its own
                result = result - layer(torch.zeros((1, 1, width), dtype=self.dtype))[0]
            elif base.bias is not None:
                result = result - base.bias
        weight: np.ndarray = _array(result).T
        return weight

    def _linear(self, module: str, task: int) -> Any:
        """The linear layer inside of PEFT's: the copy that the task's adapter saved, or the base's."""
        host = self.host_of(task)
        layer = host.layer(module)
        if isinstance(layer, ModulesToSaveWrapper):
            return layer.modules_to_save[host.adapters[task]] if task in host.adapters else layer.original_module
        return getattr(layer, "base_layer", layer)

    def _ids(self, task_ids: np.ndarray | Sequence[int]) -> Tensor:
        """The ids of the rows, checked before a tuner sees them: LoRA has no tuner of eptx, and ids choose the host."""
        given = np.asarray(task_ids)
        if given.size and given.dtype.kind not in "iu":
            raise RequestError(f"task ids must be whole numbers, got {given.tolist()}")
        ids = torch.as_tensor(given, dtype=torch.int64)
        lowest, count = INFER if self.method.infers_tasks else 0, len(self.tasks)
        if ids.ndim != 1 or not len(ids) or int(ids.min()) < lowest or int(ids.max()) > count:
            raise RequestError(f"task ids must be [batch] and lie in {lowest}..{count}, got {ids.tolist()}")
        if len({self.method.together(task, count) for task in ids.tolist()}) > 1:
            raise RequestError("rows of different tasks take a forward each")
        return ids

    def _set(self, host: Host, ids: Tensor, routes: GivenRoutes) -> None:
        """Tells the layers the rows' tasks, or the route."""
        if host.state is not None:
            self.method.tell(host.state, ids, routes)

    def _call(
        self, host: Host, tensors: dict[str, Tensor], ids: Tensor, cache: Any
    ) -> tuple[Tensor, np.ndarray | None, dict[str, Any]]:
        """The rows' tasks, their margin if the encoder inferred them, and the arguments of the class's forward."""
        if not host.base.projections:
            return ids, None, tensors if cache is None else {**tensors, "past_key_values": cache, "use_cache": True}
        margin: np.ndarray | None = None
        if host.model.main_input_name in tensors:
            tuner = None if host.peft is None else host.peft.base_model
            if isinstance(tuner, EptxTuner):  # the encoder alone is no forward of the model
                tuner._begin(host.model, (), dict(tensors))
            cache = encode(host.model, host.base.projections, tensors, cache)
            ids, margin = _used_tasks(host, ids)
            if host.state is not None:
                self.method.hold(host.state, ids)
        return ids, margin, decoder_call(host.model, tensors, cache)

    def _of_all_tokens(self, host: Host, logits: Tensor) -> Tensor:
        """Logits [..., tokens] with those of tokens that only other tasks have: this one can never give them."""
        own, others = tokens_of(host), [tokens_of(other) or 0 for other in self.hosts]
        lacking = 0 if own is None else max(others) - own
        return torch.nn.functional.pad(logits, (0, lacking), value=LACKING) if lacking > 0 else logits

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def _used_tasks(host: Host, ids: Tensor) -> tuple[Tensor, np.ndarray | None]:
    similarity: Tensor | None = getattr(host.state, "similarity", None)
    if similarity is None:
        return ids, None
    best = similarity.topk(min(2, similarity.shape[1]), dim=1).values
    margin = best[:, 0] - best[:, -1] if best.shape[1] > 1 else torch.full_like(best[:, 0], torch.inf)
    return torch.where(ids == INFER, similarity.argmax(1), ids), _array(margin)


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: _array(tensor) for name, tensor in tensors.items()}


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().numpy()
    return array
