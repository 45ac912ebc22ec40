"""PEFT's other methods, and what each of them can be told: name, class of its configuration, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_VECTORS = {"vector_length": 4, "num_vectors": 16, "topk": 2}
#: Tiny models: blocks and vectors must divide 24 and 32, and a rank is small against that.
OTHERS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("AdaLoRA", "AdaLoraConfig", {"init_r": 4, "target_r": 2, "total_step": 10}),
    ("AdaMSS", "AdamssConfig", {"r": 8, "num_subspaces": 2}),
    ("BEFT", "BeftConfig", {}),
    ("BOFT", "BOFTConfig", {"boft_block_size": 4}),
    ("BOFT, two factors", "BOFTConfig", {"boft_block_size": 4, "boft_n_butterfly_factor": 2}),
    ("C3A", "C3AConfig", {"block_size": 4}),
    ("DEFT", "DeftConfig", {"r": 2}),
    ("DEFT, QR", "DeftConfig", {"r": 2, "decomposition_method": "qr"}),
    ("DeLoRA", "DeloraConfig", {"r": 4}),
    ("FourierFT", "FourierFTConfig", {"n_frequency": 60}),
    ("FRoD", "FrodConfig", {}),
    ("GLoRA", "GloraConfig", {"r": 2}),
    ("GLoRA, vectors", "GloraConfig", {"r": 2, "config_A_B": "vector", "config_C": "vector", "config_D_E": "vector"}),
    ("GraLoRA", "GraloraConfig", {"r": 4, "gralora_k": 2}),
    ("HiRA", "HiraConfig", {"r": 2}),
    ("HRA", "HRAConfig", {"r": 4}),
    ("HRA, Gram-Schmidt", "HRAConfig", {"r": 4, "apply_GS": True}),
    ("IA3", "IA3Config", {"feedforward_modules": []}),
    ("IA3, feedforward modules", "IA3Config", {"feedforward_modules": r".*(dense|down_proj|up_proj)"}),
    ("LayerNorm tuning", "LNTuningConfig", {"target_modules": r".*(LayerNorm|layernorm|norm)"}),
    ("LoHa", "LoHaConfig", {"r": 2, "alpha": 4}),
    ("LoHa, high rank", "LoHaConfig", {"r": 8, "alpha": 4}),
    ("LoKr", "LoKrConfig", {"r": 2, "alpha": 4}),
    ("LoKr, both decomposed", "LoKrConfig", {"r": 1, "alpha": 2, "decompose_both": True, "decompose_factor": 4}),
    ("MiSS", "MissConfig", {"r": 4}),
    ("MiSS, Bat", "MissConfig", {"r": 4, "init_weights": "bat"}),
    ("OFT", "OFTConfig", {"oft_block_size": 8}),
    ("OFT, shared blocks", "OFTConfig", {"oft_block_size": 8, "block_share": True}),
    ("OFT, all biases", "OFTConfig", {"oft_block_size": 4, "bias": "all"}),
    ("OFT, constrained", "OFTConfig", {"oft_block_size": 8, "coft": True, "eps": 0.5}),
    ("OSF", "OSFConfig", {"effective_rank": 0.9}),
    ("PEANuT", "PeanutConfig", {"r": 4}),
    ("PSOFT", "PsoftConfig", {"r": 4}),
    ("PVeRA", "PveraConfig", {"r": 8}),
    ("RandLoRA", "RandLoraConfig", {"r": 4}),
    ("RoAd", "RoadConfig", {"group_size": 4}),
    ("RoAd, four numbers", "RoadConfig", {"group_size": 4, "variant": "road_4"}),
    ("SHiRA", "ShiraConfig", {"r": 2}),
    ("Super-Tuning", "SupertuningConfig", {}),
    ("TinyLoRA", "TinyLoraConfig", {"r": 2}),
    ("Uni-LoRA", "UniLoraConfig", {"r": 4}),
    ("VB-LoRA", "VBLoRAConfig", {"r": 2, "vector_length": 4, "num_vectors": 16, "topk": 2}),
    (
        "VB-LoRA, top weights only",
        "VBLoRAConfig",
        {"r": 2, "vector_length": 4, "num_vectors": 16, "save_only_topk_weights": True},
    ),
    ("VeRA", "VeraConfig", {"r": 8}),
    ("VeRA, projection of a seed", "VeraConfig", {"r": 8, "save_projection": False}),
    ("WaveFT", "WaveFTConfig", {"n_frequency": 60}),
)
