"""Make PEFT know a method that is not its own.

``peft.utils.register_peft_method`` only takes names that are already members of ``PeftType``, an enumeration
that PEFT does not let others extend, so the member is added here first.
"""

from __future__ import annotations

from typing import Any

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import PeftType, register_peft_method

from eptx.exporter.methods import modules


def peft_type(name: str) -> PeftType:
    """The member of ``PeftType`` called ``name`` (upper case), added when PEFT does not have it."""
    known = PeftType.__members__.get(name)
    if known is not None:
        return known
    member = str.__new__(PeftType, name)
    member._name_ = name
    member._value_ = name
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    PeftType._member_names_.append(name)
    # Since Python 3.12 members are found as class attributes, and the enumeration forbids setting those
    # itself.
    type.__setattr__(PeftType, name, member)
    return member


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
