"""Which classes of transformers do not compute in float16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def needs_float32(config: Mapping[str, Any]) -> bool:
    """Whether transformers keeps parts of a base in float32 where the rest is float16, as T5's `wo`.

    Trained models of such classes have sums past what float16 holds. The attribute is the only place that says so.

    Args:
        config: the content of ``config.json``; of one that names no class, nothing is known.
    """
    import transformers

    names = config.get("architectures")
    kind = getattr(transformers, str(names[0]), None) if isinstance(names, list) and names else None
    return bool(getattr(kind, "_keep_in_fp32_modules", None))
