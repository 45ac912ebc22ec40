"""What PEFT saves beside an adapter's own factors, as changes of the base's tensors.

    <module>.<tensor>                                  a module of its own (modules_to_save), or the base's resized one
    <module>.base_layer.<tensor>                       the base's own tensor, which the adapter's factors are added to
    <module>.[token_adapter.]trainable_tokens_delta    the rows of `trainable_token_indices`
    <module>.original_module.<tensor>                  the base's beside a module of its own: nothing reads it

A module that shares its tensor with another one in the base (a tied head) keeps sharing what PEFT writes into the base,
and rows of tokens; a module of its own is shared with no other. (PEFT 0.21, utils/save_and_load.py and utils/other.py)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from eptx._one_line import shown
from eptx.errors import AdapterError
from eptx.exporter.adapters.changes import Rows, TensorChange, Whole

__all__ = ["in_class", "saved_changes"]

_DELTA, _BASE = "trainable_tokens_delta", "base_layer"
_WRAPPERS = re.compile(r"\.(token_adapter|base_layer)(?=\.)")
_UNREAD = (".original_module.", ".modules_to_save.")
#: With ``bias="all"`` PEFT saves every bias by its name inside of its own layers: of a module that is saved whole that
#: is the same once more, and the base's.
_AGAIN, _OF_BASE = ".modules_to_save.bias", ".original_module.bias"


def in_class(saved: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Saved tensors without those that are there once more, or are the base's."""
    again = {name for name in saved if name.endswith(_AGAIN) and f"{name.removesuffix(_AGAIN)}.bias" in saved}
    return {name: array for name, array in saved.items() if name not in again and not name.endswith(_OF_BASE)}


def saved_changes(config: Mapping[str, Any], saved: Mapping[str, np.ndarray], file: str) -> dict[str, TensorChange]:
    """The changes by the names that the base has for its tensors.

    Args:
        config: the adapter's configuration.
        saved: the tensors, without ``base_model.model.``.
        file: that holds them, for messages.

    Raises:
        AdapterError: rows of tokens that no setting names.
    """
    found: dict[str, TensorChange] = {}
    own = [part for part in config.get("modules_to_save") or () if isinstance(part, str)]
    for name, array in saved.items():
        module, _, leaf = name.rpartition(".")
        if leaf == _DELTA or any(part in name for part in _UNREAD):
            continue
        plain = _WRAPPERS.sub("", name)
        alone = any(re.fullmatch(rf"(.*\.)?{re.escape(part)}(\..*)?", module) for part in own)
        found[plain] = Whole(array, tied=not alone)
    for name, array in saved.items():
        module, _, leaf = name.rpartition(".")
        if leaf == _DELTA:
            module = module.removesuffix(".token_adapter")
            indices = _tokens(config, module, array, file)
            under = found.get(f"{module}.weight")
            found[f"{module}.weight"] = Rows(
                indices, array, of=under.array if isinstance(under, Whole) else None, tied=True
            )
    return found


def _tokens(config: Mapping[str, Any], module: str, array: np.ndarray, file: str) -> np.ndarray:
    """The tokens int64 [n] whose rows an array [n, width] holds."""
    key = "trainable_token_indices" if config.get("trainable_token_indices") is not None else "token_indices"
    given = config.get(key)
    if isinstance(given, dict):
        named = [value for name, value in given.items() if module == name or module.endswith(f".{name}")]
        given = (named or list(given.values()))[0] if given else None  # a head that shares the embeddings is not named
    if not _are_tokens(given) or array.ndim != 2 or list(array.shape[:1]) != [len(given)]:
        raise AdapterError(
            f"{file}: {module} has {len(array)} rows of tokens, and adapter_config.json says {key}={shown(given)}: "
            "save the adapter again with its configuration"
        )
    return np.array(given, dtype=np.int64)


def _are_tokens(given: Any) -> TypeGuard[Sequence[int]]:
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        return False
    return all(type(token) is int and 0 <= token < 1 << 31 for token in given) and len(set(given)) == len(given)
