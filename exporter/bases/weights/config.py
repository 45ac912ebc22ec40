"""A base's ``config.json`` as transformers parses it, and nothing in it that would have transformers run other code.

This is the one place where a configuration is parsed for a model to be made of it. The files are anybody's: some of
their keys have transformers fetch kernels from a hub and import them, patch its classes, or read other files. eptx
needs none of these, and says itself what transformers would ask the keys for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eptx.errors import BaseModelError
from eptx.exporter.bases.weights.unfit_folder import check_float, check_no_adapter, check_own_weights
from eptx.files.links import check_links
from eptx.files.strict_json import read_json_object

#: Which code computes a part of the model, as attributes of a parsed configuration: transformers' own choice.
_CHOICES = ("_attn_implementation", "_experts_implementation", "fusion_config", "kernel_config", "use_kernels")


def checked_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder that transformers may load with the files that eptx reads.

    Raises:
        BaseModelError: it is missing or damaged, the folder holds an adapter too or links to files elsewhere, or the
            weights are in other files.
        NotSupportedError: the weights are quantized: by what library, the file would choose.
    """
    check_links(folder, error=BaseModelError)
    check_no_adapter(folder)
    config = read_json_object(folder / "config.json", error=BaseModelError)
    check_float(config)
    check_own_weights(config)
    return config


def base_config(folder: Path) -> Any:
    """transformers' configuration of a folder; a model that is made of it runs transformers' own code only.

    Raises:
        BaseModelError, NotSupportedError: as `checked_config`.
        Exception: whatever transformers' class makes of the values.
    """
    from transformers import AutoConfig, PretrainedConfig

    checked_config(folder)
    parsed: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    for config in _all(parsed, PretrainedConfig):
        for name in _CHOICES:
            if getattr(config, name, None) is not None:
                setattr(config, name, None)
    return parsed


def _all(config: Any, kind: type) -> Iterator[Any]:
    """A configuration, and those of the models inside that model."""
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, kind):
            yield from _all(value, kind)
