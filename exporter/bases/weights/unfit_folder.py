"""Refuses base folders that cannot be exported, by what lies in them, before anything is built.

What a base's graph rules out is refused where that is found: in the loaders, passes and products.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eptx.errors import BaseModelError, NotSupportedError

_ADAPTER = "adapter_config.json"
_WHAT_TO_DO = "give the base in float weights"


def check_no_adapter(folder: Path) -> None:
    """Refuses a folder of an adapter, and one of both: transformers would load that as one model.

    Raises:
        BaseModelError: there is an adapter.
    """
    if (folder / _ADAPTER).exists():
        if not (folder / "config.json").exists():
            raise BaseModelError(f"{folder.name}: is an adapter's folder; name the base model's")
        raise BaseModelError(f"{folder.name}: has {_ADAPTER} beside the base's config.json; move the adapter elsewhere")


def check_float(config: Mapping[str, Any]) -> None:
    """Refuses weights that a library has quantized, as ``config.json`` says, also of a model inside the model.

    Raises:
        NotSupportedError: by the name of the method.
    """
    settings = config.get("quantization_config") or config.get("compression_config")
    if settings:
        method = settings.get("quant_method") if isinstance(settings, dict) else None
        by = f" by {method}" if isinstance(method, str) and method.isprintable() and len(method) < 40 else ""
        raise NotSupportedError(f"config.json: the base is quantized{by} (quantization_config); {_WHAT_TO_DO}")
    for inner in config.values():
        if isinstance(inner, dict):
            check_float(inner)


def check_own_weights(config: Mapping[str, Any]) -> None:
    """Refuses a configuration that names the file of the weights: transformers would read that, and eptx the usual.

    Raises:
        BaseModelError: it does.
    """
    if config.get("transformers_weights") is not None:
        problem = "config.json: transformers_weights names another file of weights"
        raise BaseModelError(f"{problem}; call the file model.safetensors and remove the key")


def check_dtype(file: str, name: str, dtype: str) -> None:
    """Refuses weights that are stored as codes, which a library would have to dequantize.

    Args:
        file: that holds the tensor.
        name: of the tensor.
        dtype: as safetensors name it.

    Raises:
        NotSupportedError: it is one.
    """
    if "weight" in name.rpartition(".")[2] and not dtype.startswith(("F64", "F32", "F16", "BF16")):
        raise NotSupportedError(f"{file}: {name} is stored as {dtype}: the base is quantized; {_WHAT_TO_DO}")
