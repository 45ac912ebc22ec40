"""What today's transformers calls the modules whose tensors a checkpoint names as of its day.

transformers 5 renamed the modules of some models (``vit.encoder.layer.0.attention.attention.query`` became
``vit.layers.0.attention.q_proj``) and renames tensors as it loads them. An adapter trained today has the new
names; the checkpoint keeps the old.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eptx.exporter.bases.weights.config import base_config
from eptx.exporter.quiet import quiet


def renamed_tensors(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Today's name -> the checkpoint's, where the two differ; empty when transformers cannot say."""
    try:
        with quiet():
            renamings = _renamings(folder)
    except Exception:  # an unknown architecture, or a transformers that keeps its tables elsewhere
        return {}
    today = {}
    for name in names:
        new = name
        for renaming in renamings:
            new = renaming.rename_source_key(new)[0]
        if new != name:
            today[new] = name
    return today


def _renamings(folder: Path) -> list[Any]:
    import torch
    from transformers import AutoModel
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    auto: Any = AutoModel  # not annotated
    config = base_config(folder)
    with torch.device("meta"):  # its structure, none of its memory
        model = auto.from_config(config)
    return [step for step in get_model_conversion_mapping(model) if isinstance(step, WeightRenaming)]
