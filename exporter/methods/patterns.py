"""PEFT's per-module settings: ``rank_pattern``, ``alpha_pattern`` and rsLoRA."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from eptx._one_line import shown
from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter.adapters.checkpoint import CONFIG, flag, number

#: A stranger's regular expression can run for years. Repeated groups and look-arounds are refused, and so are more
#: than a few places where the search may branch; patterns that PEFT's users write name modules and layers.
_LONGEST, _MOST_CHOICES = 300, 4
_EXPONENTIAL = re.compile(r"\)[*+?{]|\(\?(?!:)")
_CHOICES = re.compile(r"[*+{(]|(?<!\()\?")


def scale_of(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """The scale of a module's update: alpha / rank, or alpha / sqrt(rank) with rsLoRA.

    Raises:
        AdapterError: the configuration contradicts the rank of the tensors, or has no alpha.
    """
    expected = _pattern(config, "rank_pattern", module, config.get("r", rank))
    if expected != rank:
        raise AdapterError(f"{module} has rank {rank}; {CONFIG} says {shown(expected)}")
    alpha = number({"lora_alpha": _pattern(config, "alpha_pattern", module, config.get("lora_alpha"))}, "lora_alpha")
    return alpha / math.sqrt(rank) if flag(config, "use_rslora") else alpha / rank


def _pattern(config: Mapping[str, Any], key: str, module: str, default: Any) -> Any:
    """The value of the first pattern that matches the module, as PEFT's ``get_pattern_key`` picks it."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise AdapterError(f"{CONFIG}: {key} must map module patterns to numbers")
    for pattern, value in patterns.items():
        if _matches(key, pattern, module):
            return value
    return default


def _matches(key: str, pattern: str, module: str) -> bool:
    if len(pattern) > _LONGEST or _EXPONENTIAL.search(pattern) or len(_CHOICES.findall(pattern)) > _MOST_CHOICES:
        raise NotSupportedError(
            f"{CONFIG}: {key} has {shown(pattern)}, which is too complex a pattern: name the modules"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a later Python may read otherwise is still read this way
            return re.match(rf"(.*\.)?({pattern})$", module) is not None
    except (re.error, OverflowError, RecursionError):
        raise AdapterError(f"{CONFIG}: {key} has an invalid pattern {pattern!r}") from None
