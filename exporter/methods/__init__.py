"""Adapter methods, one folder each. A new method is a folder and one line in `METHODS`.

A folder holds: ``adapter.py`` (what the files hold, as arrays), ``read.py`` (files to that), ``fold.py`` (the
algebra that puts one task into a weight), ``attach.py`` (operators into a graph), and, where PEFT has no tuner of the
method, ``config.py``, ``layer.py``, ``model.py`` (one, for training and for the trained model that validation loads).
"""

from eptx.exporter.methods._method import Method
from eptx.exporter.methods.ept import METHOD as EPT
from eptx.exporter.methods.lora import METHOD as LORA
from eptx.exporter.methods.tucka import METHOD as TUCKA

#: Order matters: the released EPT calls itself LORA, and is told apart by its tensors.
METHODS: tuple[Method, ...] = (EPT, TUCKA, LORA)

__all__ = ["METHODS", "Method", "method_of"]


def method_of(name: str) -> Method:
    """The method called `name` ("ept", "tucka", "lora")."""
    return next(method for method in METHODS if method.name == name)
