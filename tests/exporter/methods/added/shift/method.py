"""Shift as a method of eptx."""

from __future__ import annotations

from typing import ClassVar

from eptx.exporter.methods.method import Method
from eptx.exporter.methods.shift.attach import attach
from eptx.exporter.methods.shift.read import matches, read
from eptx.exporter.options import Mode


class Shift(Method):
    """A vector per task, added to a module's output: no change of a weight, so there is no mode "static"."""

    name: ClassVar[str] = "shift"
    title: ClassVar[str] = "Shift"
    tensor_part: ClassVar[str] = ".shift_"
    modes: ClassVar[tuple[Mode, ...]] = ("conditioned",)
    matches = staticmethod(matches)
    read = staticmethod(read)
    attach = staticmethod(attach)


METHOD = Shift()
