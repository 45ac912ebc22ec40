"""What an adapter's files say of the model that was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainedAs:
    """What an adapter's configuration says of the model that it was trained on.

    Attributes:
        noted: the class that PEFT noted down (``auto_mapping``), None where it did not.
        task_type: PEFT's ``task_type``, which stands for an Auto class; None where there is none.
        base: the last part of the base's name or path; None where there is none. The same base has many names.
        saved: the tensors of modules that it brings whole: name -> shape.
    """

    noted: str | None = None
    task_type: str | None = None
    saved: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    base: str | None = field(default=None, compare=False)


def base_name(config: Mapping[str, object]) -> str | None:
    """The last part of what ``adapter_config.json`` calls the base; None where it calls it nothing."""
    name = config.get("base_model_name_or_path")
    return (name.rpartition("/")[2] or None) if isinstance(name, str) else None
