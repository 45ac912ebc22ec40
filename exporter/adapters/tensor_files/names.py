"""What an adapter's file calls its tensors, and what PEFT's own `save_pretrained` would have called them.

    base_model.model.<module>.lora_A.weight                        as PEFT saves them
    base_model.model.<module>.lora_A.default.weight                the model's `state_dict`: with the adapter's name
    base_model.model.<module>.modules_to_save.default.weight       the same, of a module that is saved whole
    model.base_model.model.<module>..., module.base_model...       inside of another module: Lightning's, DDP's
    ..._orig_mod..., ..._fsdp_wrapped_module...                    compiled, sharded
    <module>.lora_A.weight                                         without PEFT's model around it

PEFT itself loads the first alone.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence

import numpy as np

from eptx._one_line import some
from eptx.errors import AdapterError

__all__ = ["in_class", "plain_names"]

#: PEFT's model and its tuner, and what may stand before them.
_PEFT = re.compile(r"^(?:(?:model|module)\.)*base_model\.model\.")
#: The names that compiling, sharding and checkpointing give to what they wrap; no module of a model is called so.
_WRAPPED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
#: What a module in parallel (DDP) is called.
_PARALLEL = re.compile(r"^(?:module\.)+")
#: What may stand behind a tensor's name: the adapter's, which none of the words of PEFT's own names there is.
_ADAPTER = r"(?:\.(?!(?:weight|bias|\d+)(?:\.|$))([^.]+))?(?:\.|$)"
#: What else PEFT has the adapter's name behind.
_BESIDE = re.compile(r"(\.modules_to_save(?=\.[^.]+\.)|\.trainable_tokens_delta)\.([^.]+)")
_SAVED, _OF_BASE = ".modules_to_save", ".original_module.bias"
_SAVE = "save the adapter with PEFT's save_pretrained"


def plain_names(names: Iterable[str], parts: Sequence[str], telling: Sequence[str], file: str) -> dict[str, str]:
    """Each tensor's name as PEFT saves it, without ``base_model.model.``.

    Args:
        names: in the file.
        parts: of the names of the adapter's own tensors.
        telling: the tensors behind whose names only the adapter's can stand; others have words of their own there.
        file: that holds them, for messages.

    Raises:
        AdapterError: two tensors are called alike then, or not all of them have one adapter's name in them.
    """
    found = {name: _of_module(name) for name in names}
    known = set(found.values())
    beside = {name: _saved_for(plain) for name, plain in found.items() if not _again(plain, known)}
    factor = re.compile(rf"(?:^|\.)(?:{'|'.join(map(re.escape, telling))}){_ADAPTER}")
    factors = {name: match[1] for name, plain in found.items() if telling and (match := factor.search(plain))}
    said = {adapter for adapter in (*factors.values(), *beside.values()) if adapter is not None}
    if len(said) > 1:
        raise AdapterError(f"{file}: holds several adapters, {some(sorted(said))}: {_SAVE}, one at a time")
    named = [name for name, adapter in factors.items() if adapter is not None]
    if named and len(named) < len(factors):
        other = next(name for name, adapter in factors.items() if adapter is None)
        raise AdapterError(
            f"{file}: {found[named[0]]} has the adapter's name {factors[named[0]]!r} in it, and {found[other]} has "
            f"none: {_SAVE}"
        )
    plain = {name: _without(each, said, parts) if name in beside else each for name, each in found.items()}
    first: dict[str, str] = {}
    for name, each in plain.items():
        if first.setdefault(each, name) != name:
            raise AdapterError(f"{file}: {each} appears twice, as {first[each]} and as {name}: {_SAVE}")
    return plain


def in_class(saved: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Saved tensors without those that are there once more, or are the base's.

    With ``bias="all"`` PEFT saves every bias by its name inside of its own layers: of a module that is saved whole that
    is the same once more, and the base's.
    """
    return {name: array for name, array in saved.items() if not _again(name, saved) and not name.endswith(_OF_BASE)}


def _again(name: str, names: Container[str]) -> bool:
    """Whether a tensor of a module that is saved whole is there by its plain name too."""
    return f"{_SAVED}." in name and name.replace(_SAVED, "") in names


def _of_module(name: str) -> str:
    """A name without what stands around the model."""
    return _PARALLEL.sub("", _PEFT.sub("", _WRAPPED.sub("", name), count=1))


def _saved_for(name: str) -> str | None:
    """Whose a tensor beside an adapter's own is, where its name says that."""
    match = _BESIDE.search(name)
    return None if match is None else match[2]


def _without(name: str, said: Container[str], parts: Sequence[str]) -> str:
    """A name without the adapter's in it."""
    match = _BESIDE.search(name)
    if match is not None:
        return name[: match.start()] + (name[match.end() :] if match[1] == _SAVED else match[1])
    at = next((at + len(part) for part in parts if (at := f".{name}".find(part)) >= 0), None)
    if at is None:
        return name
    word, *rest = name[at - 1 :].split(".")
    return name if not rest or rest[0] not in said else ".".join([name[: at - 1] + word, *rest[1:]])
