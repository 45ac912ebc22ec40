"""Settings of an EPT adapter, as saved in ``adapter_config.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from eptx.exporter.methods.peft_types import peft_type
from eptx.exporter.methods.tuner import TunerConfig

RELEASED_KERNEL_SIZES = (2, 2, 4, 4, 6, 6, 8, 8)


@dataclass
class EptConfig(TunerConfig):
    """Expert Pyramid Tuning (arXiv 2603.12577). Of the other settings see `TunerConfig`.

    Args:
        r: rank of the shared core.
        lora_alpha: the update is scaled by ``lora_alpha / r``.
        lora_dropout: dropout on the input of the update while training.
        use_rslora: scale by ``lora_alpha / sqrt(r)`` instead.
        kernel_sizes: size of each expert's kernel, at least 2.
        num_experts: how many of the kernels, from the first on, the gate chooses among; None: all. (The released code
            always chooses among 8.)
        kernel_pattern: sizes of single modules, ``{whole module name: sizes}``.
        rank_pattern: ranks of single modules, ``{whole module name: rank}``.
        alpha_pattern: ``lora_alpha`` of single modules, same form.
        top_k: number of experts that a task uses in a module.
        zero_init_kernels: start as the base model exactly, with kernels of zero.
        task_loss_weight: of the contrastive task loss, beside the loss of the tasks; 0 trains without it.
        infer_fraction: fraction of the rows, while training, whose task the modules are not told but infer. Without
            such rows the adapted layers write the task they were told into position 0, and their embeddings learn to
            read that.
    """

    r: int = 8
    lora_alpha: float = 32
    lora_dropout: float = 0.0
    use_rslora: bool = False
    kernel_sizes: list[int] = field(default_factory=lambda: list(RELEASED_KERNEL_SIZES))
    num_experts: int | None = None
    kernel_pattern: dict[str, list[int]] = field(default_factory=dict)
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    top_k: int = 2
    zero_init_kernels: bool = False
    task_loss_weight: float = 0.1
    infer_fraction: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.peft_type = peft_type("EPT")
        self.kernel_sizes = [int(s) for s in self.kernel_sizes]
        if self.r < 1:
            raise ValueError(f"r must be at least 1, got {self.r}")
        if self.task_loss_weight < 0 or not 0 <= self.infer_fraction <= 1:
            raise ValueError(
                f"task_loss_weight must be 0 or more, and infer_fraction lie in 0..1, got {self.task_loss_weight} and "
                f"{self.infer_fraction}"
            )
        for sizes in (self.kernel_sizes, *self.kernel_pattern.values()):
            if not sizes or min(sizes) < 2:
                raise ValueError(f"kernel sizes must be 2 or more, got {list(sizes)}")
            experts = min(self.num_experts or len(sizes), len(sizes))
            if not 1 <= self.top_k <= experts:
                raise ValueError(f"top_k must lie in 1..{experts}, the number of experts, got {self.top_k}")
