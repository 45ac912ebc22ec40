"""A linear layer with Expert Pyramid Tuning (arXiv 2603.12577), computed as the released code computes it.

In evaluation mode the update goes the released way: windows of the shared core, a transposed convolution per
    expert.
In training mode the same function is computed through the experts' low-rank factors, which is what makes
mixed-task batches affordable; a test holds the two together.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from eptx.exporter.methods.ept.config import EptConfig
from eptx.exporter.methods.tuner import INFER, TaskRows

TEMPERATURE = 0.05
"""Of the similarities in the contrastive task loss (released code)."""


class EptState(TaskRows):
    """Tasks of the batch, and what one forward gathers over all modules.

    Attributes:
        collect_loss: whether layers add their contrastive task loss to ``losses``.
        targets: the rows' tasks for that loss, of which ``ids`` may keep some from the layers; None: ``ids``.
        losses: one scalar per module run since the forward began.
        similarity: sum over modules of the cosine of position 0 and every task's embedding, ``[batch,
            tasks]``.
        inferred: task that each module used for each row, ``{module: [batch]}``, when some row is to be
            inferred.
    """

    def __init__(self, num_tasks: int) -> None:
        super().__init__(num_tasks)
        self.collect_loss = False
        self.targets: Tensor | None = None
        self.begin()

    def begin(self) -> None:
        """Forget what the last forward gathered."""
        self.losses: list[Tensor] = []
        self.similarity: Tensor | None = None
        self.inferred: dict[str, Tensor] = {}


class EptLayer(BaseTunerLayer):
    """Weights of EPT on one linear layer, with the names of the released checkpoints."""

    adapter_layer_names = ("lora_A", "lora_B", "lora_expert_kernels", "lora_gate", "lora_task_embedding")
    other_param_names = ("r", "scaling", "kernel_sizes", "top_k", "lora_dropout")

    def __init__(self, base_layer: nn.Linear, module: str, state: EptState) -> None:
        self.base_layer = base_layer
        self.module = module
        self.state = state
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.r: dict[str, int] = {}
        self.scaling: dict[str, float] = {}
        self.kernel_sizes: dict[str, tuple[int, ...]] = {}
        self.top_k: dict[str, int] = {}
        self.lora_dropout: Any = nn.ModuleDict()
        self.lora_A: Any = nn.ModuleDict()
        self.lora_B: Any = nn.ModuleDict()
        self.lora_expert_kernels: Any = nn.ModuleDict()
        self.lora_gate: Any = nn.ModuleDict()
        self.lora_task_embedding: Any = nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def update_layer(self, adapter_name: str, config: EptConfig, *, inference_mode: bool = False) -> None:
        """Add the weights of one adapter."""
        r = config.rank_pattern.get(self.module, config.r)
        sizes = tuple(config.kernel_pattern.get(self.module, config.kernel_sizes))
        self.r[adapter_name] = r
        alpha = config.alpha_pattern.get(self.module, config.lora_alpha)
        self.scaling[adapter_name] = alpha / (math.sqrt(r) if config.use_rslora else r)
        self.kernel_sizes[adapter_name] = sizes
        self.top_k[adapter_name] = config.top_k
        dropout = config.lora_dropout
        self.lora_dropout[adapter_name] = nn.Dropout(dropout) if dropout else nn.Identity()
        self.lora_A[adapter_name] = nn.Linear(self.in_features // 2, r, bias=False)
        self.lora_B[adapter_name] = nn.Linear(r, self.out_features // 2, bias=False)
        self.lora_expert_kernels[adapter_name] = nn.ParameterList(
            [nn.Parameter(torch.empty(1, max(1, self.out_features // s), s, 1)) for s in sizes]
        )
        experts = min(config.num_experts or len(sizes), len(sizes))
        self.lora_gate[adapter_name] = nn.Sequential(nn.Linear(self.in_features, experts), nn.Softmax(dim=1))
        self.lora_task_embedding[adapter_name] = nn.Embedding(len(config.tasks), self.in_features)
        if config.init_weights:
            self._initialize(adapter_name, config)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _initialize(self, name: str, config: EptConfig) -> None:
        nn.init.kaiming_uniform_(self.lora_A[name].weight, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.lora_B[name].weight, a=math.sqrt(5))
        for kernel in self.lora_expert_kernels[name]:
            if config.zero_init_kernels:
                nn.init.zeros_(kernel)
            else:
                nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.lora_gate[name][0].weight, mode="fan_in", nonlinearity="relu")
        # The released bias is random and outweighs the small embeddings, so that all tasks start on the same
        # experts.
        nn.init.zeros_(self.lora_gate[name][0].bias)
        nn.init.normal_(self.lora_task_embedding[name].weight, std=0.01)

    def route(self, name: str) -> tuple[Tensor, Tensor]:
        """Experts int64 and weights, each ``[tasks, K]``, of every task; softmax twice, as released."""
        p = self.lora_gate[name](self.lora_task_embedding[name].weight)
        chosen, experts = torch.topk(p, self.top_k[name], dim=1)
        return experts, torch.softmax(chosen, dim=1)

    def task_similarity(self, rows: Tensor, name: str) -> Tensor:
        """Cosine of position 0 of each row with each task's embedding: ``[batch, tasks]``."""
        embedding = self.lora_task_embedding[name].weight.to(rows.dtype)
        return F.normalize(rows[:, 0], dim=1) @ F.normalize(embedding, dim=1).t()


class EptLinear(nn.Module, EptLayer):
    """``nn.Linear`` plus the EPT update of each row's task."""

    def __init__(
        self, base_layer: nn.Linear, adapter_name: str, module: str, state: EptState, config: EptConfig
    ) -> None:
        super().__init__()
        EptLayer.__init__(self, base_layer, module, state)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``[..., in]`` to ``[..., out]``; the rows' tasks come from the tuner's ``set_tasks``."""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name in self.lora_A:
                delta = self._delta(x.to(self.lora_A[name].weight.dtype), name)
                result = result + self.state.as_output(delta * self.scaling[name], result).to(result.dtype)
        return result

    def _delta(self, x: Tensor, name: str) -> Tensor:
        """The update before scaling, ``[batch, positions, out]``."""
        rows = self.state.as_rows(x)
        ids = self._task_ids(rows, name)
        rows = self.lora_dropout[name](rows)
        if self.training:
            return self._factored(rows, ids, name)
        experts, weights = self.route(name)
        out: Tensor = rows.new_zeros((*rows.shape[:2], self.out_features))
        for task in sorted(set(ids.tolist())):
            if task == self.state.num_tasks:
                continue
            of_task = (ids == task).nonzero().squeeze(1)
            picked = rows[of_task]
            terms = zip(experts[task].tolist(), weights[task], strict=True)
            out[of_task] = torch.stack([w * self._expert(picked, e, name) for e, w in terms]).sum(0)
        return out

    def _task_ids(self, rows: Tensor, name: str) -> Tensor:
        """The rows' tasks, inferred where they are to be; the task loss and the similarities on the way."""
        state = self.state
        if state.ids is None:
            if state.num_tasks > 1:
                raise ValueError("set the rows' tasks first: tuner.set_tasks(ids)")
            return torch.zeros(rows.shape[0], dtype=torch.int64, device=rows.device)
        ids = state.ids.to(rows.device)
        infer = ids == INFER
        if not (state.collect_loss or bool(infer.any())):
            return ids
        if state.shared and self.module in state.inferred:
            return state.inferred[self.module]  # what the rows share tells nothing of their tasks
        similarity = self.task_similarity(rows, name)
        if state.collect_loss:
            targets = ids if state.targets is None else state.targets.to(rows.device)
            own = targets.masked_fill((targets == INFER) | (targets == state.num_tasks), -100)
            state.losses.append(F.cross_entropy(similarity / TEMPERATURE, own, ignore_index=-100))
        state.similarity = similarity if state.similarity is None else state.similarity + similarity
        ids = torch.where(infer, similarity.argmax(1), ids)
        state.inferred[self.module] = ids
        return ids

    def _expert(self, rows: Tensor, expert: int, name: str) -> Tensor:
        """One expert as released: ``[n, positions, in]`` to ``[n, positions, out]``."""
        size = self.kernel_sizes[name][expert]
        window_in, window_out = self._windows(size)
        down = self.lora_A[name].weight[:, :window_in]
        up = self.lora_B[name].weight[:window_out]
        small = rows[..., :window_in] @ down.t() @ up.t()
        kernel = self.lora_expert_kernels[name][expert].reshape(window_out, 1, size)
        # positions side by side along the length, which strides of a kernel's size keep apart (10 x faster in float64)
        side_by_side = small.reshape(1, -1, window_out).transpose(1, 2)
        wide = F.conv_transpose1d(side_by_side, kernel, stride=size, groups=window_out)
        flat = wide.reshape(window_out, -1, size).transpose(0, 1).reshape(*rows.shape[:2], window_out * size)
        return F.pad(flat, (0, self.out_features - window_out * size))  # a negative width cuts

    def _windows(self, size: int) -> tuple[int, int]:
        """How many inputs an expert reads, and how many numbers its kernel spreads out; both at least 1 (released)."""
        return max(1, self.in_features // size), max(1, self.out_features // size)

    def _factored(self, rows: Tensor, ids: Tensor, name: str) -> Tensor:
        """The same update through per-task factors of rank K·R, batched over rows of any tasks."""
        experts, weights = self.route(name)
        down, up = self._expert_factors(name)
        tasks, k, r = experts.shape[0], experts.shape[1], down.shape[1]
        chosen = experts.flatten()
        down_task = down.index_select(0, chosen).reshape(tasks, k * r, -1)
        up_task = up.index_select(0, chosen) * weights.reshape(-1, 1, 1)
        up_task = up_task.transpose(1, 2).reshape(tasks, k * r, -1)
        off = ids == tasks
        own = ids.masked_fill(off, 0)
        small = torch.bmm(rows[..., : self.in_features // 2], down_task.index_select(0, own).transpose(1, 2))
        return torch.bmm(small.masked_fill(off[:, None, None], 0), up_task.index_select(0, own))

    def _expert_factors(self, name: str) -> tuple[Tensor, Tensor]:
        """Every expert as two factors: down ``[experts, R, in//2]`` and up ``[experts, out, R]``."""
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        downs, ups = [], []
        for size, kernel in zip(self.kernel_sizes[name], self.lora_expert_kernels[name], strict=True):
            window_in, window_out = self._windows(size)
            downs.append(F.pad(down[:, :window_in], (0, down.shape[1] - window_in)))
            wide = (kernel.reshape(window_out, size, 1) * up[:window_out, None]).reshape(window_out * size, -1)
            ups.append(F.pad(wide, (0, 0, 0, self.out_features - window_out * size)))
        return torch.stack(downs), torch.stack(ups)
