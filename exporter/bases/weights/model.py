"""A transformers folder as a PyTorch model: configuration, class and weights, from local safetensors only."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eptx._one_line import one_line, some
from eptx.errors import BaseModelError, EptxError, NotSupportedError
from eptx.exporter.bases.weights.checkpoint import BaseCheckpoint
from eptx.exporter.bases.weights.config import base_config, checked_config
from eptx.exporter.bases.weights.model_class import find_class, no_architecture
from eptx.exporter.bases.weights.whole import Banked, Saved, named_in, put_whole

#: ``base_model_prefix`` by model type: importing a model's code to ask it takes seconds.
PREFIXES = {
    "bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
    "deberta-v2": "deberta",
    "vit": "vit",
    "llama": "model",
    "t5": "transformer",
    "mt5": "transformer",
}


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a transformers folder.

    Raises:
        BaseModelError: no such folder, or its configuration is missing or damaged; or there is an adapter.
        NotSupportedError: the weights are quantized.
    """
    if not folder.is_dir():
        raise BaseModelError(f"{folder}: no such base model folder")
    config = checked_config(folder)
    if not isinstance(config.get("model_type"), str):
        raise BaseModelError("config.json: has no model_type; it is no folder that save_pretrained wrote")
    return config


def base_prefix(config: dict[str, Any]) -> str:
    """``base_model_prefix`` of a configuration's architecture, "" when transformers does not know it."""
    if config.get("model_type") in PREFIXES:
        return PREFIXES[config["model_type"]]
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config.get("model_type") not in CONFIG_MAPPING:
        return ""
    model_class: Any = AutoModel._model_mapping.get(CONFIG_MAPPING[config["model_type"]], None)
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    return str(getattr(model_class, "base_model_prefix", "") or "")


def is_encoder_decoder(folder: Path, config: dict[str, Any], class_name: str) -> bool:
    """Whether a class answers one text with another, token by token.

    Args:
        folder: the transformers folder.
        config: its ``config.json``.
        class_name: the class of transformers that the base is exported as.

    Raises:
        BaseModelError, NotSupportedError: see `parse_config` and `find_class`.
    """
    parsed = parse_config(folder, config)
    return bool(parsed.is_encoder_decoder) and bool(find_class(class_name, parsed).can_generate())


def load_model(folder: Path, config: dict[str, Any], class_name: str, saved: Saved | None = None) -> tuple[Any, Banked]:
    """The ``PreTrainedModel`` in float32, in evaluation mode, on the CPU, with no cache (but an encoder-decoder's).

    Args:
        folder: the transformers folder.
        config: its ``config.json``.
        class_name: the class of transformers to load it as.
        saved: modules that an adapter's tasks bring whole; the base may lack what they all bring.

    Returns:
        the model, and what it does not hold of those modules.

    Raises:
        BaseModelError: the weights are missing, damaged, pickled, or do not fit the configuration.
        NotSupportedError: transformers has no such architecture or class.
        AdapterError: what the tasks bring does not fit the class.
    """
    BaseCheckpoint(folder)  # refuses pickles and damaged files before the library meets them
    saved = saved or Saved()
    parsed = parse_config(folder, config)
    model_class = find_class(class_name, parsed)
    parsed.use_cache = bool(parsed.is_encoder_decoder and model_class.can_generate())
    options: dict[str, Any] = {}
    model, lacking = _load(model_class, folder, parsed)
    brought = named_in(model, saved, base_prefix(config))
    absent = _not_in(lacking, brought)
    if absent and all(name.startswith("pooler.") for name in absent) and _may_lack_pooler(model_class):
        # masked language models are saved without the pooler that the bare class would add
        options = {"add_pooling_layer": False}
        model, lacking = _load(model_class, folder, parsed, **options)
        absent = _not_in(lacking, brought)
    if absent:
        wanted = type(model).__name__
        modules = ", ".join(dict.fromkeys(name.split(".")[0] for name in absent))
        problem = f"{folder.name}: the weights lack {some(absent)}; they are not those of a {wanted}"
        if saved.rows and 2 * len(absent) < len(model.state_dict()):  # else it is another model's folder
            problem += f", and no adapter brings them: PEFT saves them with modules_to_save ({modules})"
        raise BaseModelError(problem)

    def reload(labels: int) -> Any:
        parsed.num_labels = labels
        return _load(model_class, folder, parsed, ignore_mismatched_sizes=True, **options)[0]

    model, whole = put_whole(model, lacking, brought, saved, reload)
    return model.eval(), whole


def empty_model(folder: Path, config: dict[str, Any], class_name: str) -> Any:
    """The ``PreTrainedModel`` without its weights: the modules, and the shapes of their parameters.

    Raises:
        BaseModelError, NotSupportedError: see `load_model`.
    """
    import torch

    parsed = parse_config(folder, config)
    model_class = find_class(class_name, parsed)
    try:
        with torch.device("meta"):
            return model_class(parsed)
    except Exception as e:  # sizes that make no layer
        raise BaseModelError(f"config.json makes no {class_name}: {one_line(e)}") from None


def _may_lack_pooler(model_class: Any) -> bool:
    return "add_pooling_layer" in inspect.signature(model_class.__init__).parameters


def _not_in(lacking: list[str], brought: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [name for name in lacking if not any(name in own for own in brought.values())]


def parse_config(folder: Path, config: dict[str, Any]) -> Any:
    """transformers' configuration of a folder.

    Raises:
        BaseModelError: it does not take the values.
        NotSupportedError: it knows no such architecture.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config["model_type"] not in CONFIG_MAPPING:
        raise NotSupportedError(no_architecture(config["model_type"]))
    try:
        return base_config(folder)
    except EptxError:
        raise
    except Exception as e:  # the configuration classes raise whatever their fields' values provoke
        raise BaseModelError(f"config.json: not a usable configuration: {one_line(e)}") from None


def _load(model_class: Any, folder: Path, config: Any, **options: Any) -> tuple[Any, list[str]]:
    """The model, and the names of its parameters that the files do not have."""
    import torch

    try:
        model, info = model_class.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except Exception as e:  # shapes that do not fit, damaged files, sizes that make no layer
        raise BaseModelError(f"{folder.name}: the weights cannot be loaded: {one_line(e)}") from None
    return model, sorted(info["missing_keys"])
