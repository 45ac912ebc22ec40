"""Settings of a TuckA adapter, as saved in ``adapter_config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eptx.exporter.methods.peft_types import peft_type
from eptx.exporter.methods.tuner import TunerConfig


@dataclass
class TuckaConfig(TunerConfig):
    """Tucker Adaptation (arXiv 2511.06859, AAAI 2026). Of the other settings see `TunerConfig`.

    Args:
        r: rank of the shared factor.
        k: number of expert groups.
        t: experts in a group.
        p: rank that the experts of a group share.
        alpha: factor of the update.
        router_name: whole name of the module that routes; empty for the first adapted one in module order.
        routing: ``batch``, one route for the whole batch as released; ``row``, one per row over its unpadded
            positions.
        ec_perturb_scale: half width of the uniform noise that sets the router's centroids apart at the start.
        router_initialized: whether the centroids have been set, by the first batch of the training or from a file.
    """

    r: int = 8
    k: int = 2
    t: int = 2
    p: int = 2
    alpha: float = 2
    router_name: str = ""
    routing: str = "batch"
    ec_perturb_scale: float = 1.0
    router_initialized: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.peft_type = peft_type("TUCKA")
        if min(self.r, self.k, self.t, self.p) < 1:
            raise ValueError(f"r, k, t, p must be at least 1, got {self.r}, {self.k}, {self.t}, {self.p}")
        if self.routing not in ("batch", "row"):
            raise ValueError(f"routing must be 'batch' or 'row', got {self.routing!r}")
