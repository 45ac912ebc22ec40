"""The transformers class that a base is exported as: the one that the adapter was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eptx.errors import NotSupportedError
from eptx.exporter.adapters.trained_as import TrainedAs

#: What optimum calls PEFT's task types.
_TASKS = {
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "CAUSAL_LM": "text-generation",
    "SEQ_2_SEQ_LM": "text2text-generation",
    "FEATURE_EXTRACTION": "feature-extraction",
}
_BARE = "feature-extraction"


def trained_class(config: Mapping[str, Any], said: Sequence[TrainedAs], *, headless: bool) -> str:
    """The name of the class: what the adapter's files say, else what the base was saved as, else the bare model.

    Args:
        config: the base's ``config.json``.
        said: what the adapter's files say, one for each folder.
        headless: whether heads beside the adapter read the bare model, whatever else is said.

    Raises:
        NotSupportedError: transformers has no such class, or the folders were trained on several.
    """
    if headless:
        return _of_task(config, _BARE)
    names = list(dict.fromkeys(_one(config, each) for each in said or [TrainedAs()]))
    if len(names) > 1:
        raise NotSupportedError(f"the adapters were trained on different classes, {' and '.join(names)}: export each")
    return names[0]


def _one(config: Mapping[str, Any], said: TrainedAs) -> str:
    if said.noted is not None:
        return said.noted
    if said.task_type in _TASKS:
        return _of_task(config, _TASKS[said.task_type])
    architectures = config.get("architectures")
    return str(architectures[0]) if isinstance(architectures, list) and architectures else _of_task(config, _BARE)


def _of_task(config: Mapping[str, Any], task: str) -> str:
    """The class that a base has for one of optimum's tasks."""
    from optimum.exporters.tasks import TasksManager
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config["model_type"]
    if kind not in CONFIG_MAPPING:
        raise NotSupportedError(no_architecture(kind))
    found = TasksManager.get_model_class_for_task(task)._model_mapping.get(CONFIG_MAPPING[kind], None)
    if isinstance(found, tuple):
        found = found[0]
    if found is None:
        raise NotSupportedError(f"transformers has no class for {task} of {kind!r}")
    return str(found.__name__)


def no_architecture(kind: str) -> str:
    """What is said of a ``model_type`` that transformers does not know."""
    from transformers import __version__

    return f"transformers has no architecture {kind!r} (model_type in config.json), as of the installed {__version__}"


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
        raise NotSupportedError(f"transformers has no model {name!r}, as of the installed {transformers.__version__}")
    takes = getattr(found, "config_class", None)
    if takes is not None and not isinstance(config, takes):
        raise NotSupportedError(f"the adapter was trained on a {name}; the base is a {config.model_type!r}")
    return found
