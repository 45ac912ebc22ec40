"""PEFT's LoRA, setting by setting."""

from __future__ import annotations

from typing import Any

from peft.tuners.lora.config import BdLoraConfig, KasaConfig, MontecloraConfig, VeloraConfig

_DORA: dict[str, Any] = {"use_dora": True}
_START = "init_lora_weights"

#: Name -> settings of every adapter.
SAME: tuple[tuple[str, dict[str, Any]], ...] = (
    ("LoRA, rank-stabilized", {"use_rslora": True}),
    (
        "LoRA, rank_pattern and alpha_pattern",
        {"rank_pattern": {"query": 5, "q_proj": 5}, "alpha_pattern": {"value": 7, "v_proj": 9}},
    ),
    ("LoRA, rank-stabilized with patterns", {"use_rslora": True, "rank_pattern": {"key": 2, "k_proj": 5}}),
    ("LoRA, DoRA", _DORA),
    ("LoRA, lora_bias", {"lora_bias": True}),
    ("LoRA, bias=all", {"bias": "all"}),
    ("LoRA, bias=lora_only", {"bias": "lora_only"}),
    ("LoRA, all-linear", {"target_modules": "all-linear"}),
    ("LoRA, layers_to_transform", {"layers_to_transform": [0]}),
    ("LoRA, exclude_modules", {"target_modules": "all-linear", "exclude_modules": ["query", "q_proj"]}),
    ("LoRA, target_modules as an expression", {"target_modules": r".*\.(query|value|q_proj|v_proj)"}),
    ("LoRA, from gaussian", {_START: "gaussian"}),
    ("LoRA, from orthogonal", {_START: "orthogonal"}),
    ("LoRA, from MiCA", {_START: "mica"}),
    ("LoRA, from PiSSA", {_START: "pissa"}),
    ("LoRA, from OLoRA", {_START: "olora"}),
    ("LoRA, from randomized PiSSA", {_START: "pissa_niter_4"}),
    ("LoRA, from LoRA-GA", {_START: "lora_ga"}),
    ("LoRA, KaSA", {"kasa_config": KasaConfig()}),
    ("LoRA, VeLoRA", {"velora_config": VeloraConfig()}),
    ("LoRA, MonteCLoRA", {"monteclora_config": MontecloraConfig()}),
    (
        "LoRA, BD-LoRA",
        {
            "use_bdlora": BdLoraConfig(
                target_modules_bd_a=["query", "q_proj"],
                target_modules_bd_b=["value", "v_proj"],
                nblocks=2,
                match_strict=False,
            )
        },
    ),
)
#: Name -> settings of the first adapter, the second, the rest.
OWN: tuple[tuple[str, tuple[dict[str, Any], ...]], ...] = (
    ("LoRA, DoRA in some tasks", ({**_DORA, "use_rslora": True}, {}, {**_DORA, "rank_pattern": {"query": 5}})),
    ("LoRA, lora_bias in some tasks", ({}, {"lora_bias": True}, {})),
    ("LoRA, bias=all and DoRA in some tasks", ({"bias": "all", **_DORA}, {}, _DORA)),
    ("LoRA, from PiSSA, OLoRA and nothing", ({_START: "pissa", **_DORA}, {_START: "olora"}, {})),
    ("LoRA, KaSA in some tasks", ({}, {"kasa_config": KasaConfig()}, {})),
)
