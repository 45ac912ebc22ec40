"""Make PEFT know a method, or a type of task, that is not its own.

``peft.utils.register_peft_method`` only takes names that are already members of ``PeftType``, an enumeration
that PEFT does not let others extend, so the member is added here first. ``TaskType`` is one of the same kind.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeVar

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import PeftType, TaskType, register_peft_method

from eptx.exporter.methods import modules

_Member = TypeVar("_Member", bound=Enum)


def peft_type(name: str) -> PeftType:
    """The member of ``PeftType`` called ``name`` (upper case), added when PEFT does not have it."""
    return _member(PeftType, name)


def task_type(name: str) -> TaskType:
    """The member of ``TaskType`` called ``name`` (upper case), added when PEFT does not have it."""
    return _member(TaskType, name)


def _member(kind: type[_Member], name: str) -> _Member:
    known = kind.__members__.get(name)
    if known is not None:
        return known
    member: Any = str.__new__(kind, name)  # type: ignore[type-var]
    member._name_ = name
    member._value_ = name
    kind._member_map_[name] = member
    kind._value2member_map_[name] = member
    kind._member_names_.append(name)
    # Since Python 3.12 members are found as class attributes, and the enumeration forbids setting those
    # itself.
    type.__setattr__(kind, name, member)
    return member  # type: ignore[no-any-return]


#: The names under which eptx has registered tuners, upper case.
_REGISTERED: list[str] = []


def registered() -> list[str]:
    """The ``peft_type`` of every method that has a tuner of ours, once all are known to PEFT."""
    modules("model")
    return sorted(_REGISTERED)


def register(name: str, config_cls: type[Any], model_cls: type[Any]) -> None:
    """Register a tuner under ``name`` (lower case); a second call changes nothing."""
    if peft_type(name.upper()) not in PEFT_TYPE_TO_TUNER_MAPPING:
        register_peft_method(name=name, config_cls=config_cls, model_cls=model_cls, prefix=model_cls.prefix)
        _REGISTERED.append(name.upper())
