"""PEFT's per-module settings: ``rank_pattern``, ``alpha_pattern`` and rsLoRA."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from eptx.errors import AdapterError
from eptx.exporter._checkpoint import CONFIG, number


def scale_of(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """The scale of a module's update: alpha / rank, or alpha / sqrt(rank) with rsLoRA.

    Raises:
        AdapterError: the configuration contradicts the rank of the tensors, or has no alpha.
    """
    expected = _pattern(config, "rank_pattern", module, config.get("r", rank))
    if expected != rank:
        raise AdapterError(f"{module} has rank {rank}; {CONFIG} says {expected!r}")
    alpha = number({"lora_alpha": _pattern(config, "alpha_pattern", module, config.get("lora_alpha"))}, "lora_alpha")
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _pattern(config: Mapping[str, Any], key: str, module: str, default: Any) -> Any:
    """The value of the first pattern that matches the module, as PEFT's ``get_pattern_key`` picks it."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise AdapterError(f"{CONFIG}: {key} must map module patterns to numbers")
    for pattern, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error:
            raise AdapterError(f"{CONFIG}: {key} has an invalid pattern {pattern!r}") from None
    return default
