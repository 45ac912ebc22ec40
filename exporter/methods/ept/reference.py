"""The trained EPT model: a PEFT tuner that PEFT fills."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from peft.utils.other import get_pattern_key
from torch import Tensor

from eptx.errors import AdapterError, UsageError
from eptx.exporter.methods.ept.config import EptConfig
from eptx.exporter.methods.ept.model import EptModel  # noqa: F401 - tells PEFT of it
from eptx.exporter.methods.tuner import INFER
from eptx.exporter.trained.files import CONFIG, PREFIX, WEIGHTS, AdapterFiles
from eptx.exporter.trained.names import exactly
from eptx.exporter.trained.reference import GivenRoutes, Reference, SavedAs

_TASKS = ".lora_task_embedding.weight"
_KERNELS = ".lora_expert_kernels."
_GATE = ".lora_gate.0.weight"


class EptReference(Reference):
    """One adapter of all tasks: every layer embeds every task, and has its own router."""

    name: ClassVar[str] = "ept"
    title: ClassVar[str] = "EPT"
    tensor_part: ClassVar[str] = ".lora_"
    router_parts: ClassVar[tuple[str, ...]] = ("lora_gate", "lora_task_embedding")
    takes_top_k: ClassVar[bool] = True
    infers_tasks: ClassVar[bool] = True

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        """The released code calls itself LORA; its expert kernels tell."""
        return any(_KERNELS in name for name in tensors)

    def count_tasks(self, files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[int, list[str]]:
        """The tensors count the tasks, for each is embedded."""
        count = max((shape[0] for shape in files[0].shapes(_TASKS).values()), default=1)
        return count, list(files[0].config.get("tasks") or [])

    def modules(self, files: AdapterFiles) -> list[str]:
        return list(files.shapes(_TASKS))

    def config(
        self, files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str], top_k: int | None, saved: SavedAs
    ) -> EptConfig:
        """The released configuration is LoRA's: experts and their sizes are in the tensors' shapes alone."""
        given = files.config
        ranks, alphas = given.get("rank_pattern") or {}, given.get("alpha_pattern") or {}
        sizes: dict[str, dict[int, int]] = {new: {} for new in names.values()}
        for name, tensor in files.tensors.items():
            module, kernel, number = name.removeprefix(PREFIX).rpartition(_KERNELS)
            if kernel and module not in names:
                raise AdapterError(f"{files.folder.name}: {WEIGHTS} has no tensor for {module}{_TASKS}")
            if kernel and tensor.ndim == 4:
                sizes[names[module]][int(number)] = tensor.shape[2]
        pattern = {new: [by[number] for number in sorted(by)] for new, by in sizes.items()}
        gates = [shape[0] for shape in files.shapes(_GATE).values()]
        return EptConfig(
            r=given["r"],
            lora_alpha=given["lora_alpha"],
            use_rslora=bool(given.get("use_rslora")),
            target_modules=exactly(list(names.values())),
            rank_pattern={new: ranks.get(get_pattern_key(list(ranks), old), given["r"]) for old, new in names.items()},
            alpha_pattern={
                new: alphas.get(get_pattern_key(list(alphas), old), given["lora_alpha"]) for old, new in names.items()
            },
            kernel_sizes=max(pattern.values(), key=len),
            num_experts=max(gates, default=None),
            kernel_pattern=pattern,
            top_k=_top_k(files, top_k),
            tasks=list(tasks),
            init_weights=False,
            task_type=saved[0],
            modules_to_save=saved[1],
            inference_mode=True,
        )

    def tell(self, state: Any, ids: Tensor, routes: GivenRoutes | None = None) -> None:
        """Rows of one task are as one row: layers whose input has no rows then run as transformers calls them."""
        alike = int(ids[0]) != INFER and bool((ids == ids[0]).all())
        state.set(ids[:1] if alike else ids, lowest=INFER)

    def hold(self, state: Any, ids: Tensor) -> None:
        self.tell(state, ids)

    def experts(self, layer: Any, dtype: torch.dtype) -> tuple[np.ndarray, int]:
        name = layer.active_adapters[0]
        gate = layer.lora_gate[name][0]
        with torch.no_grad():
            tasks = layer.lora_task_embedding[name].weight.to(dtype)
            logits = torch.nn.functional.linear(tasks, gate.weight.to(dtype), gate.bias.to(dtype))
            probabilities: np.ndarray = logits.softmax(1).numpy()
        return probabilities, layer.top_k[name]


REFERENCE = EptReference()


def _top_k(files: AdapterFiles, given: int | None) -> int:
    """How many experts a task uses; released files do not say it.

    Raises:
        UsageError: nobody says it, or two say different things.
    """
    saved = files.config.get("top_k")
    if given is not None and saved is not None and given != saved:
        raise UsageError(f"--top-k {given} contradicts {CONFIG}, which says {saved}")
    top_k = given if given is not None else saved
    if type(top_k) is not int or not 1 <= top_k <= sys.maxsize:
        raise UsageError(f"{CONFIG} does not say how many experts a task uses: give --top-k")
    return top_k
