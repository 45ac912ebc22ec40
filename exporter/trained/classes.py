"""The class that an adapter was trained on, and a base loaded as it. On purpose the exporter's loader is not used.

With task heads beside the adapter it is the base model without a head. Else the first of these that is there names
it: PEFT's ``auto_mapping``, the adapter's ``task_type``, the class that the base was saved as.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from eptx._one_line import one_line
from eptx.errors import BaseModelError, EptxError, NotSupportedError
from eptx.exporter.bases.weights.config import base_config
from eptx.exporter.trained.encode import Projections, cross_projections
from eptx.exporter.trained.files import PREFIX, AdapterFiles
from eptx.exporter.trained.reference import references

#: What PEFT's task types are trained on.
_OF_TASK_TYPE = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "FEATURE_EXTRACTION": "AutoModel",
}
_NAMED = 4


@dataclass(frozen=True)
class Base:
    """A base as the class of an adapter.

    Attributes:
        model: float32, in evaluation mode, with as many labels as the adapter's own head has.
        complete: whether the base alone has everything that the class needs.
        labelled: whether the adapter brings the head that gives the labels.
        resized: whether that head has other labels than the base's head, which the model then lacks.
        projections: of an encoder-decoder that generates: what its decoder makes of the encoder's states.
    """

    model: Any
    complete: bool
    labelled: bool
    resized: bool
    projections: Sequence[Projections] = ()


def load_base(base: Path, files: AdapterFiles, *, plain: bool = False) -> Base:
    """The base's ``PreTrainedModel`` as the class of an adapter.

    Args:
        base: its folder.
        files: the adapter's.
        plain: with the base's own labels, whatever the adapter's head has.

    Raises:
        BaseModelError: the weights cannot be loaded, or lack what the class needs and the adapter does not bring.
        NotSupportedError: transformers has no such class.
    """
    config = _config(base)
    auto = _class_of(config, files)
    config.use_cache = bool(config.is_encoder_decoder)
    saved = {} if plain else saved_modules(files)
    own, labels = config.num_labels, _labels(auto, config, saved)
    if labels is not None:
        config.num_labels = labels
    model, missing, resized = _load(auto, base, config)
    lacking = [name for name in (*missing, *resized) if name not in saved]
    if lacking and all(name.startswith("pooler.") for name in lacking):
        # a base that was saved with a head that has no pooler never trained a pooler
        model, missing, resized = _load(auto, base, config, add_pooling_layer=False)
        lacking = [name for name in (*missing, *resized) if name not in saved]
    if lacking:
        more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        some = ", ".join(lacking[:_NAMED]) + more
        raise BaseModelError(f"{base.name}: as a {type(model).__name__} its weights lack {some}")
    model.eval()
    projections = cross_projections(model) if config.is_encoder_decoder and model.can_generate() else ()
    return Base(model, not missing, labels is not None, labels not in (None, own), projections)


def saved_modules(files: AdapterFiles) -> dict[str, tuple[int, ...]]:
    """The tensors of modules that PEFT saved whole (a classifier, a norm): name in the model -> shape."""
    parts = {reference.tensor_part for reference in references()}
    return {
        name.removeprefix(PREFIX): tuple(tensor.shape)
        for name, tensor in files.tensors.items()
        if not any(part in name for part in parts)
    }


def _config(base: Path) -> Any:
    try:
        return base_config(base)
    except EptxError:
        raise
    except Exception as error:  # configuration classes raise any class
        raise BaseModelError(f"{base.name}: config.json is not usable: {one_line(error)}") from None


def _class_of(config: Any, files: AdapterFiles) -> Any:
    """A model class of transformers, or one of its Auto classes."""
    noted = (files.config.get("auto_mapping") or {}).get("base_model_class")
    task_type = files.config.get("task_type")
    saved_as = (config.architectures or ["AutoModel"])[0]
    own = noted or _OF_TASK_TYPE.get(str(task_type)) or saved_as
    name = own if files.heads is None else "AutoModel"
    found = getattr(transformers, str(name), None)
    if found is None or not hasattr(found, "from_pretrained"):
        raise NotSupportedError(f"transformers has no model class {name!r}, on which the adapter was trained")
    return found


def _labels(auto: Any, config: Any, saved: Mapping[str, tuple[int, ...]]) -> int | None:
    """How many labels the adapter's own head has; None without one.

    The class is built twice without weights, once with one label more: a tensor that grows by that has the labels.
    """
    config = deepcopy(config)
    shapes = []
    try:
        for more in (0, 1):
            config.num_labels += more
            with torch.device("meta"):
                skeleton = auto.from_config(config) if hasattr(auto, "from_config") else auto(config)
            shapes.append({name: tuple(parameter.shape) for name, parameter in skeleton.named_parameters()})
    except Exception as error:  # sizes that make no model
        raise BaseModelError(f"config.json makes no model: {one_line(error)}") from None
    counts = [saved[name][0] for name, shape in shapes[0].items() if name in saved and shapes[1][name] != shape]
    return counts[0] if counts else None


def _load(auto: Any, base: Path, config: Any, **options: Any) -> tuple[Any, list[str], list[str]]:
    """The model, and the names of its parameters that the files lack, and that have another shape there."""
    try:
        model, info = auto.from_pretrained(
            base,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # a head of another task; the caller looks at what is not filled
            **options,
        )
    except Exception as error:  # shapes that do not fit, damaged files, sizes that make no layer
        raise BaseModelError(f"{base.name}: the weights cannot be loaded: {one_line(error)}") from None
    mismatched = {entry[0] if isinstance(entry, tuple) else str(entry) for entry in info["mismatched_keys"]}
    return model, sorted({*info["missing_keys"]} - mismatched), sorted(mismatched)
