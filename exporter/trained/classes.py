"""The class that an adapter was trained on, and a base loaded as it. On purpose the exporter's loader is not used.

With task heads beside the adapter it is the base model without a head. Else the first of these that is there names
it: PEFT's ``auto_mapping``, the adapter's ``task_type``, the class that the base was saved as, if it has the modules
that the adapter replaces, and the only class that has them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from eptx._one_line import one_line
from eptx.errors import BaseModelError, EptxError, NotSupportedError, UsageError
from eptx.exporter.bases.weights.config import base_config
from eptx.exporter.trained.encode import Projections, cross_projections
from eptx.exporter.trained.files import PREFIX, AdapterFiles
from eptx.exporter.trained.reference import references
from eptx.exporter.trained.vocabulary import is_beside, resize

#: What PEFT's task types are trained on.
_OF_TASK_TYPE = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "FEATURE_EXTRACTION": "AutoModel",
}
#: The classes that may have a head that an adapter brings without naming it.
_MAY_FIT = (
    "AutoModel",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForMultipleChoice",
    "AutoModelForImageClassification",
    "AutoModelForAudioClassification",
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
)
_NAMED = 4


@dataclass(frozen=True)
class Base:
    """A base as the class of an adapter.

    Attributes:
        model: float32, in evaluation mode, with as many labels as the adapter's own head has.
        complete: whether the base alone has everything that the class needs.
        labelled: whether the adapter brings the head that gives the labels.
        resized: whether it has other labels than the base's head, which the model then lacks, or another vocabulary.
        projections: of an encoder-decoder that generates: what its decoder makes of the encoder's states.
    """

    model: Any
    complete: bool
    labelled: bool
    resized: bool
    projections: Sequence[Projections] = ()


def load_base(base: Path, files: AdapterFiles, *, plain: bool = False, model_class: str | None = None) -> Base:
    """The base's ``PreTrainedModel`` as the class of an adapter.

    Args:
        base: its folder.
        files: the adapter's.
        plain: with the base's own labels, whatever the adapter's head has.
        model_class: the class, or the Auto class, if somebody names it.

    Raises:
        UsageError: several classes have the modules that the adapter replaces.
        BaseModelError: the weights cannot be loaded, or lack what the class needs and the adapter does not bring.
        NotSupportedError: transformers has no such class.
    """
    config = _config(base)
    auto = _found(model_class or said_class(files) or _fitting(config, files))
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
    vocabulary = not plain and resize(model.eval(), files)
    projections = cross_projections(model) if config.is_encoder_decoder and model.can_generate() else ()
    return Base(model, not missing, labels is not None, vocabulary or labels not in (None, own), projections)


def saved_modules(files: AdapterFiles) -> dict[str, tuple[int, ...]]:
    """The tensors of modules that PEFT saved whole (a classifier, a norm): name in the model -> shape."""
    parts = {part for reference in references() if (part := reference.part(files.config))}
    found = {
        name.removeprefix(PREFIX): tuple(tensor.shape)
        for name, tensor in files.tensors.items()
        if not is_beside(name) and not any(part in name for part in parts)
    }
    if files.config.get("bias", "none") == "none":
        return found
    # PEFT trains biases where they are, and takes them from the file by itself
    return {name: shape for name, shape in found.items() if not _is_bias_alone(name, found)}


def _is_bias_alone(name: str, names: Collection[str]) -> bool:
    """Whether a tensor is a bias whose module is not saved whole."""
    return name.endswith(".bias") and f"{name.removesuffix('bias')}weight" not in names


def _config(base: Path) -> Any:
    try:
        return base_config(base)
    except EptxError:
        raise
    except Exception as error:  # configuration classes raise any class
        raise BaseModelError(f"{base.name}: config.json is not usable: {one_line(error)}") from None


def said_class(files: AdapterFiles) -> str | None:
    """The class, or the Auto class, that an adapter's files name; None if they leave it to the base."""
    if files.heads is not None:
        return "AutoModel"
    noted = (files.config.get("auto_mapping") or {}).get("base_model_class")
    return noted or _OF_TASK_TYPE.get(str(files.config.get("task_type")))


def same_class(base: Path, one: str, other: str) -> bool:
    """Whether two names of classes, or of Auto classes, mean the same for a base."""
    config = _config(base)
    return _made_by(_found(one), config) is _made_by(_found(other), config)


def _fitting(config: Any, files: AdapterFiles) -> str:
    """The class by the base's own ``architectures``, or if the adapter replaces what that has not, by its tensors."""
    own = (config.architectures or ["AutoModel"])[0]
    saved = saved_modules(files)
    if not saved or _has(own, config, saved):
        return str(own)
    fits = {_made_by(getattr(transformers, name), config): name for name in _MAY_FIT if _has(name, config, saved)}
    if len(fits) > 1:
        classes = ", ".join(kind.__name__ for kind in fits)
        raise UsageError(
            f"the adapter does not say its class, and replaces {min(saved)}: give --model-class, of {classes}"
        )
    return next(iter(fits.values()), str(own))


def _has(name: str, config: Any, saved: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a class has all these tensors, with as many labels as one of them has rows."""
    for labels in {shape[0] for shape in saved.values() if shape}:
        config = deepcopy(config)
        config.num_labels = labels
        try:
            with torch.device("meta"):
                model = _made_by(getattr(transformers, name), config)(config)
        except Exception:  # no such class for this model
            return False
        found = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        if saved.items() <= found.items():
            return True
    return False


def _made_by(auto: Any, config: Any) -> Any:
    """The class itself; of an Auto class, the one that it makes of a configuration."""
    if not hasattr(auto, "_model_mapping"):
        return auto
    kind = auto._model_mapping[type(config)]
    return kind[0] if isinstance(kind, tuple | list) else kind


def _found(name: str) -> Any:
    """A model class of transformers, or one of its Auto classes."""
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
    if getattr(model, "_can_set_experts_implementation", lambda: False)():
        model.set_experts_implementation("eager")  # the faster ones do not compute in float64
    mismatched = {entry[0] if isinstance(entry, tuple) else str(entry) for entry in info["mismatched_keys"]}
    return model, sorted({*info["missing_keys"]} - mismatched), sorted(mismatched)
