"""The transformers class that a base is exported as: the one that the adapter was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eptx._one_line import shown, some
from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.adapters.trained_as import TrainedAs
from eptx.exporter.bases.names import aliases
from eptx.exporter.bases.weights.config import base_config

#: What PEFT's task types are trained on.
_TASKS = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "FEATURE_EXTRACTION": "AutoModel",
}
_BARE = "AutoModel"
#: The classes of which one may have the head that an adapter brings without saying what it is.
_WITH_HEADS = (
    *list(_TASKS.values())[:4],
    "AutoModelForMultipleChoice",
    "AutoModelForImageClassification",
    "AutoModelForAudioClassification",
    "AutoModelForMaskedLM",
)
_SAY = "give --model-class NAME"


def trained_class(
    config: Mapping[str, Any],
    said: Sequence[TrainedAs],
    *,
    headless: bool,
    asked: str | None = None,
    folder: Path | None = None,
) -> str:
    """The name of the class: what the user asks for, else what the adapter's files say, else what its tensors fit.

    What its tensors fit is the class that the base was saved as, or else the only one that has a head like theirs;
    without such tensors it is the class that the base was saved as, or else the bare model.

    Args:
        config: the base's ``config.json``.
        said: what the adapter's files say, one for each folder.
        headless: whether heads beside the adapter read the bare model, whatever else is said.
        asked: the name of a class, or of an Auto class, that the user gives.
        folder: the base's, to try classes on; needed where adapters may bring tensors.

    Raises:
        NotSupportedError: transformers has no such class, or the folders were trained on several.
        UsageError: the tensors fit several classes, or the class has no place for the heads beside the adapter.
    """
    wanted = None if asked is None else _named(config, asked)
    if headless:
        bare = _named(config, _BARE)
        if wanted not in (None, bare):
            raise UsageError(f"--model-class {asked}: the heads beside the adapter read the bare model, a {bare}")
        return bare
    if wanted is not None:
        return wanted
    names = [_one(config, each, folder) for each in said or [TrainedAs()]]
    if len(set(names)) > 1:
        found = some(list(dict.fromkeys(names)))
        raise NotSupportedError(
            f"the adapters were trained on different classes, {found}: export each by itself, "
            "or all as one class with --model-class NAME"
        )
    return names[0]


def _one(config: Mapping[str, Any], said: TrainedAs, folder: Path | None) -> str:
    if said.noted is not None:
        return said.noted
    if said.task_type in _TASKS:
        return _named(config, _TASKS[said.task_type])
    architectures = config.get("architectures")
    own = str(architectures[0]) if isinstance(architectures, list) and architectures else None
    if said.saved and folder is not None:
        fitting = list(_fitting(config, said.saved, folder, own))
        if len(fitting) > 1 and own not in fitting:
            tensors = some(list(said.saved), most=2)
            raise UsageError(
                f"adapter_config.json has no task_type, and what it brings ({tensors}) fits several classes: "
                f"{_SAY}, one of {some(fitting, most=8)}"
            )
        if fitting:
            return own if own in fitting else fitting[0]
    return own or _named(config, _BARE)


def _fitting(
    config: Mapping[str, Any], saved: Mapping[str, tuple[int, ...]], folder: Path, own: str | None
) -> Iterator[str]:
    """The classes that have every tensor of these shapes, the base's own first, for some number of labels."""
    import torch
    import transformers

    known = [own] if own is not None else []
    for auto in (_BARE, *_WITH_HEADS):
        name = _class_in(config, auto)
        known += [name] if name is not None else []
    for name in dict.fromkeys(known):
        for labels in sorted({shape[0] for shape in saved.values() if shape}):
            parsed = base_config(folder)
            parsed.num_labels = labels
            try:
                with torch.device("meta"):  # its structure, none of its memory
                    model = getattr(transformers, name)(parsed)
            except Exception:  # a class that is not one of transformers, or sizes that make no model
                break
            shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
            prefix = str(getattr(model, "base_model_prefix", "") or "")
            if all(any(shapes.get(alias) == shape for alias in aliases(key, prefix)) for key, shape in saved.items()):
                yield name
                break


def _named(config: Mapping[str, Any], name: str) -> str:
    """A class by its name, or by that of an Auto class."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config["model_type"] not in CONFIG_MAPPING:
        raise NotSupportedError(no_architecture(config["model_type"]))
    if not hasattr(transformers, name):
        raise NotSupportedError(f"transformers has no model {shown(name)}: {_SAY} of one that it has")
    if not name.startswith("Auto"):
        return name
    found = _class_in(config, name)
    if found is None:
        raise NotSupportedError(f"transformers has no {name} for {config['model_type']!r}: {_SAY} of one that it has")
    return found


def _class_in(config: Mapping[str, Any], auto: str) -> str | None:
    """The class that an Auto class makes of a configuration; None if it makes none."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    mapping = getattr(getattr(transformers, auto), "_model_mapping", None)
    found = None if mapping is None else mapping.get(CONFIG_MAPPING[config["model_type"]], None)
    if isinstance(found, tuple):
        found = found[0]
    return None if found is None else str(found.__name__)


def no_architecture(kind: str) -> str:
    """What is said of a ``model_type`` that transformers does not know."""
    from transformers import __version__

    said = f"transformers has no architecture {kind!r} (model_type in config.json), as of the installed {__version__}"
    return f"{said}: update transformers"


def reads_segments(config: Mapping[str, Any], said: Sequence[TrainedAs]) -> bool:
    """Whether the trained model read ``token_type_ids``: PEFT 0.21's wrapper for ``QUESTION_ANS`` drops them.

    Args:
        config: the base's ``config.json``.
        said: what the adapter's files say, one for each folder.

    Raises:
        NotSupportedError: some were trained with them, and some without.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    dropped = [each.task_type == "QUESTION_ANS" for each in said]
    if not any(dropped):
        return True
    kinds = getattr(CONFIG_MAPPING[config["model_type"]].from_dict(dict(config)), "type_vocab_size", 0)
    if kinds > 1 and not all(dropped):
        raise NotSupportedError(
            "some of the adapters have task_type QUESTION_ANS in adapter_config.json, with which PEFT trains without "
            "token_type_ids, and others were trained with them: export those by themselves"
        )
    return False


def find_class(name: str, config: Any) -> Any:
    """A class of transformers by its name.

    Args:
        name: of the class.
        config: the base's parsed configuration.

    Raises:
        NotSupportedError: there is none, or it takes another model's configuration.
    """
    import transformers

    found = getattr(transformers, name, None)
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        raise NotSupportedError(
            f"transformers has no model {shown(name)} as of {transformers.__version__}: {_SAY} of one that it has"
        )
    takes = getattr(found, "config_class", None)
    if takes is not None and not isinstance(config, takes):
        raise NotSupportedError(
            f"the adapter was trained on a {name}; the base is a {config.model_type!r}: give the one it was trained on"
        )
    return found
