"""Settings of a TuckA adapter, as saved in ``adapter_config.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig

from eptx.exporter.methods.peft_types import peft_type


@dataclass
class TuckaConfig(PeftConfig):
    """Tucker Adaptation (arXiv 2511.06859, AAAI 2026).

    Args:
        r: rank of the shared factor.
        k: number of expert groups.
        t: experts in a group.
        p: rank that the experts of a group share.
        alpha: factor of the update.
        target_modules: names (suffixes) of the linear layers to adapt, or one regular expression over whole
            names.
        exclude_modules: names to leave out, same form.
        router_name: whole name of the module that routes; empty for the first adapted one in module order.
        routing: ``batch``, one route for the whole batch as released; ``row``, one per row over its unpadded
            positions.
        ec_perturb_scale: half width of the uniform noise that sets the router's centroids apart at the start.
        router_initialized: whether the centroids have been set from data (they are saved, and not set again).
        tasks: task names; a task's id is its index.
        init_weights: False leaves the weights uninitialized (they are about to be loaded).
        task_head_pooling: what the task heads read: ``pooler``, ``first`` or ``mean``; None without heads.
        task_labels: names of the labels, ``{task: names}``.
    """

    r: int = 8
    k: int = 2
    t: int = 2
    p: int = 2
    alpha: float = 2
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    router_name: str = ""
    routing: str = "batch"
    ec_perturb_scale: float = 1.0
    router_initialized: bool = False
    tasks: list[str] = field(default_factory=lambda: ["task0"])
    init_weights: bool = True
    bias: str = "none"
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    task_head_pooling: str | None = None
    task_labels: dict[str, list[str]] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self.peft_type = peft_type("TUCKA")
        self.tasks = list(self.tasks)
        if self.bias != "none":
            raise ValueError(f"TuckA trains no biases, got bias={self.bias!r}")
        if min(self.r, self.k, self.t, self.p) < 1:
            raise ValueError(f"r, k, t, p must be at least 1, got {self.r}, {self.k}, {self.t}, {self.p}")
        if self.routing not in ("batch", "row"):
            raise ValueError(f"routing must be 'batch' or 'row', got {self.routing!r}")
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks must be distinct names and at least one, got {self.tasks}")
