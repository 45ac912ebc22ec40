"""The names of an adapter's modules in the installed transformers, which renames modules between versions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from eptx.errors import BaseModelError


def names_in(model: Any, modules: Iterable[str]) -> dict[str, str]:
    """Each module's name in the model: the same, with or without the bare model's prefix, or the new name.

    Args:
        model: the transformers model.
        modules: as the adapter's tensors name them, without PEFT's prefix.

    Raises:
        BaseModelError: the model has no such module.
    """
    known = {name for name, _ in model.named_modules()}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    rename = _Renaming(model)
    found, missing = {}, []
    for module in modules:
        spellings = [module, module.removeprefix(prefix), prefix + module]
        name = next((n for s in spellings for n in (s, rename(s)) if n in known), None)
        if name is None:
            missing.append(module)
        else:
            found[module] = name
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BaseModelError(f"a {type(model).__name__} has no module {missing[0]}{more}, which the adapter adapts")
    return found


def exactly(names: Sequence[str]) -> str:
    """A regular expression for PEFT's ``target_modules`` that matches these whole names and nothing else."""
    return "|".join(re.escape(name) for name in names)


class _Renaming:
    """transformers' own tables of renamed modules."""

    def __init__(self, model: Any) -> None:
        entries = get_model_conversion_mapping(model)
        self._renamings = [entry for entry in entries if isinstance(entry, WeightRenaming)]
        self._converters = [entry for entry in entries if isinstance(entry, WeightConverter)]

    def __call__(self, module: str) -> str:
        renamed, _ = rename_source_key(f"{module}.weight", self._renamings, self._converters)
        return str(renamed).removesuffix(".weight")
