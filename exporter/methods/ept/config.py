"""Settings of an EPT adapter, as saved in ``adapter_config.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig

from eptx.exporter.methods.peft_types import peft_type

RELEASED_KERNEL_SIZES = (2, 2, 4, 4, 6, 6, 8, 8)


@dataclass
class EptConfig(PeftConfig):
    """Expert Pyramid Tuning (arXiv 2603.12577).

    Args:
        r: rank of the shared core.
        target_modules: names (suffixes) of the linear layers to adapt, or one regular expression over whole
            names.
        exclude_modules: names to leave out, same form.
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
        tasks: task names; a task's id is its index.
        init_weights: False leaves the weights uninitialized (they are about to be loaded).
        zero_init_kernels: start as the base model exactly, with kernels of zero.
        task_head_pooling: what the task heads read: ``pooler``, ``first`` or ``mean``; None without heads.
        task_labels: names of the labels, ``{task: names}``.
    """

    r: int = 8
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    lora_alpha: float = 32
    lora_dropout: float = 0.0
    use_rslora: bool = False
    kernel_sizes: list[int] = field(default_factory=lambda: list(RELEASED_KERNEL_SIZES))
    num_experts: int | None = None
    kernel_pattern: dict[str, list[int]] = field(default_factory=dict)
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    top_k: int = 2
    tasks: list[str] = field(default_factory=lambda: ["task0"])
    init_weights: bool = True
    zero_init_kernels: bool = False
    bias: str = "none"
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    task_head_pooling: str | None = None
    task_labels: dict[str, list[str]] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self.peft_type = peft_type("EPT")
        self.kernel_sizes = [int(s) for s in self.kernel_sizes]
        self.tasks = list(self.tasks)
        if self.bias != "none":
            raise ValueError(f"EPT trains no biases, got bias={self.bias!r}")
        if self.r < 1:
            raise ValueError(f"r must be at least 1, got {self.r}")
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks must be distinct names and at least one, got {self.tasks}")
        for sizes in (self.kernel_sizes, *self.kernel_pattern.values()):
            if not sizes or min(sizes) < 2:
                raise ValueError(f"kernel sizes must be 2 or more, got {list(sizes)}")
            experts = min(self.num_experts or len(sizes), len(sizes))
            if not 1 <= self.top_k <= experts:
                raise ValueError(f"top_k must lie in 1..{experts}, the number of experts, got {self.top_k}")
